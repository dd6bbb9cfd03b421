"""Makes, trains and exports the embedded model; a development tool that needs torch."""
