"""The mutants that compute the same as the original, by function and changed statement, each with its reason."""

LENGTH = "NumPy takes any negative length as the one to find out"
AXES = "the same of four axes"
ORDER = "the same in either order"
TILES = "tiles of another size, the same results"

EQUIVALENT = {
    ("rows", "return a.reshape(-2, a.shape[-1])"): LENGTH,
    ("linear", "return (y.reshape(*x.shape[:-1], -2), (x, w, b))"): LENGTH,
    ("unembedding", "return (z.reshape(*x.shape[:-1], -2), (x, w))"): LENGTH,
    ("Noise.bytes", "return words.view(np.uint8).reshape(shape[0], -2)[:, :n].reshape(shape)"): LENGTH,
    ("layernorm", "var = ((mean - x) ** 2).mean(-1, keepdims=True)"): "a square has no sign",
    ("dropout", "return (y, (scale, keep))"): "the backward multiplies by both",
    ("attention", "def attention(q, k, v, rate=1.0, noise=None):"): "the rate is read only where there is noise",
    ("attention", "T, S, D = (q.shape[2], k.shape[-2], q.shape[-1])"): AXES,
    ("attention", "T, S, D = (q.shape[-2], k.shape[2], q.shape[-1])"): AXES,
    ("split_heads", "return x.reshape(B, T, H, C // H).swapaxes(2, 1)"): ORDER,
    ("merge_heads", "return x.swapaxes(2, 1).reshape(B, T, H * D)"): ORDER,
    ("step", "check_step(grads, params, moments)"): "what differs is found from either side",
    ("tiles", "rows = max(TILE * len(arrays[0]) // arrays[0].size, 1)"): ORDER,
    ("tiles", "rows = max(2, TILE * len(arrays[0]) // arrays[0].size)"): TILES,
    ("tiles", "rows = max(1, TILE * len(arrays[0]))"): TILES,
    ("tiles", "rows = max(1, arrays[0].size)"): TILES,
    ("tiles", "rows = max(1, arrays[0].size // (TILE * len(arrays[0])))"): TILES,
    ("tiles", "rows = max(1, TILE // arrays[0].size)"): TILES,
    ("tiles", "rows = max(1, len(arrays[0]) // arrays[0].size)"): TILES,
    ("clip", "if norm >= max_norm:"): "at equality the factor is 1",
    ("cosine", "progress = min((step - warmup) / max(1, steps - warmup), 1.0)"): ORDER,
    ("cosine", "progress = min(1.0, (step - warmup) / max(steps - warmup, 1))"): ORDER,
    ("Noise.bytes", "blocks = math.ceil(n)"): "more bytes than are asked for, and cut off",
    ("Noise.bytes", "blocks = math.ceil(n * 16)"): "more bytes than are asked for, and cut off",
    ("Noise.bytes", "index = np.arange(start, min(blocks, start + TILE), dtype=np.uint32)"): ORDER,
}
