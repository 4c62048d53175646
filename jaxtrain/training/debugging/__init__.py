"""Tries of a run that leave its own files alone: does it go through, can it learn, and which operation goes wrong?"""
