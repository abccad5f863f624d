"""Who goes first where a model is full: classes, waiting lines, forecasts, fair shares. What decides is pure; `gates` alone waits."""
