"""An hour of ordinary trouble, and whether the daemon is afterwards what it was before."""
