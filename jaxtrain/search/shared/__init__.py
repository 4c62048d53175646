"""Studies that several workers share through a database."""
