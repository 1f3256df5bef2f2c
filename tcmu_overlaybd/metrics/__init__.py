"""Metrics for Prometheus: ``families`` names them all, ``readings`` is what a scrape reads."""
