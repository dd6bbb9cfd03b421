"""ROCmForge: a server for GGUF language models that does not fall over."""
