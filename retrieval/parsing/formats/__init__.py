"""One parser per file: `parse(source, out)`. Imported in the parsing process alone, by `retrieval.parsing.registry`."""
