"""HyperCUT: a sharp video from one motion-blurred photo. The science, usable alone."""

__version__ = "0.1.0"
