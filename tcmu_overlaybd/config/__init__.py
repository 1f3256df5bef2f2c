"""Configuration files: of one image, of the service, and the folder of an upper.

The reference validates nothing; here a wrong type is an error that names the key.
Unknown keys are ignored, so that files written for other versions can be read.
"""
