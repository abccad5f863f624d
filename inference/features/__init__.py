"""Features of entities: kept here or at Feast, joined to predictions and to training sets, held against what a model was trained on."""
