"""The search: a config with a space becomes a study, whose trials run as lanes of few compiled programs."""
