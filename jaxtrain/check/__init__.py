"""Questions that are asked of a config before training: why would this network not train?"""
