"""Endpoints whose calls are billed by other units than a text's tokens: characters, seconds, images, search units. `endpoints` lists them.

They take the one path of `gateway.completion`. Each has a `Door` that reads its request, says what a call can use at most, and reads
what it used; `relay` carries one attempt. Doors are pure.
"""
