"""HyperCUT: learn without labels which of the two directions of a clip is the canonical one."""
