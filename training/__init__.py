"""Makes, trains and exports the embedded model. Development only: needs torch, which the package does not."""
