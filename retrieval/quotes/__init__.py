"""`penstock/quotes`: a chat model without weights, which answers by quoting the best supported sentences, or says that there are none."""
