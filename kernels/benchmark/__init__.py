"""Every op against its floor and against what one would use instead: ``python -m kernels.benchmark``."""
