"""Registries, as the OCI distribution specification describes them: names, access, manifests, blobs.

No native code and no daemon are known here.  ``client.RegistryClient`` is what others
use; a request passes, from the outside in::

    client      what is asked: a manifest, a blob, whether one is there
    conversation  again after a pause (retry); http or https (once per host);
                with a password or token (tokens, auth, challenge); at another place (redirects)
    wire        one request, one reply, each wait bounded (bounded_http, deadline)

Secrets (passwords, tokens, what a signed URL carries) are in no message and no ``repr``.
"""
