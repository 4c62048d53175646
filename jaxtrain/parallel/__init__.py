"""Devices: mesh, population of lanes, memory and compiled programs."""
