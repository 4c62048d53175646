"""Devices: the mesh, lanes, memory and compiled programs."""
