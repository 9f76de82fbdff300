"""Our own batching engine: weights, tokenizer and templates through transformers, the rest is here.

One prompt on its way: ``chat`` renders it, ``scheduler`` decides what each step computes, ``cache`` where its
keys and values lie, ``runner`` or ``graphs`` has the device do it (``forward`` over ``plain`` operations or
``kernels``), ``sampler`` draws, ``text`` makes text of the ids; ``worker`` and ``engine`` tie them together.
"""
