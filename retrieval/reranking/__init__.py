"""`penstock/rerank`: a reranker without weights to download, by words, their places, and meaning where that is to be had."""
