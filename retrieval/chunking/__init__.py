"""Texts into passages: exact offsets, hard limits, and cuts that the content decides, so that an edit moves only those near it."""
