"""The process boundary: every message that crosses it, and the channel that carries it."""
