"""List the mutants that compute the same as the original: (function, changed statement): reason."""

LENGTH = "NumPy infers the length for any negative number"
AXES = "both axes have the same length"
EITHER = "both branches return the same numbers"
EVEN = "cos x = cos -x"
MORE_CANDIDATES = "more logits are sorted than are needed"
MORE = "more numbers are generated than are used"
ORDER = "the order doesn't change the result"
THREADS = "the number of threads doesn't change the result"
TILES = "the size of a tile doesn't change the result"

EQUIVALENT = {
    ("rows", "return a.reshape(-2, a.shape[-1])"): LENGTH,
    ("linear", "return (y.reshape(*x.shape[:-1], -2), (x, w, b))"): LENGTH,
    ("unembedding", "return (z.reshape(*x.shape[:-1], -2), (x, w))"): LENGTH,
    ("Noise.bytes", "return words.view(np.uint8).reshape(shape[0], -2)[:, :n].reshape(shape)"): LENGTH,
    ("dropout", "return (y, (scale, keep))"): "the backward multiplies by both numbers",
    ("attention", "def attention(q, k, v, rate=1.0, noise=None):"): "rate is read only if there is noise",
    ("attention", "T, S, D = (q.shape[2], k.shape[-2], q.shape[-1])"): AXES,
    ("attention", "T, S, D = (q.shape[-2], k.shape[2], q.shape[-1])"): AXES,
    ("attention", "if T >= 1:"): "the mask of a single query is empty",
    (
        "attention",
        "ys, tiles = zip(*each_tile(partial(ops.attention, rate=rate), q, k, v, noise), strict=True)",
    ): "at a rate of 0 the bytes aren't read",
    ("attention_backward", "dk, dv = (np.zeros_like(v), np.zeros_like(k))"): "both have the same shape",
    ("gpt2", "s_h.append(s_i)"): "the logits are the same; tests/fast/test_memory.py measures the memory",
    ("Groups.attend", "new = qkv[:, rows].reshape(len(kv.k), -2, qkv.shape[-1])"): LENGTH,
    ("Groups.attend", "ctx.append(kv.attend(new).reshape(1, -2, qkv.shape[-1] // 3))"): LENGTH,
    ("survivors", "return best(z, n)"): ORDER,
    ("survivors", "return best(z, n) if n <= len(z) else np.arange(n)"): ORDER,
    ("nucleus_size", "if top_p == 2:"): "at top_p = 1 only tokens below rounding are cut",
    ("nucleus_size", "likely = z[p > (1 - top_p - ROUNDING) / len(z) * total]"): "no probability equals the bound",
    ("nucleus_size", "likely = z[p >= (1 - top_p - ROUNDING) / len(z)]"): MORE_CANDIDATES,
    ("nucleus_size", "likely = z[p >= (1 - top_p - ROUNDING) / len(z) / total]"): MORE_CANDIDATES,
    ("nucleus_size", "likely = z[p >= ROUNDING / len(z) * total]"): MORE_CANDIDATES,
    ("nucleus_size", "likely = z[p >= (ROUNDING - (1 - top_p)) / len(z) * total]"): MORE_CANDIDATES,
    ("nucleus_size", "likely = z[p >= (top_p - 1 - ROUNDING) / len(z) * total]"): MORE_CANDIDATES,
    ("nucleus_size", "likely = z[p >= (1 - top_p) / len(z) * total]"): "the difference is below rounding",
    ("nucleus_size", "likely = z[p >= (1 - top_p + ROUNDING) / len(z) * total]"): "the difference is below rounding",
    ("nucleus_size", "return min(len(z), int(np.searchsorted(mass, top_p * total)) + 1)"): ORDER,
    ("uniform", "if not 4 * len(ids) < ids.max():"): EITHER,
    ("uniform", "if 4 * len(ids) <= ids.max():"): EITHER,
    ("uniform", "if 4 < ids.max():"): EITHER,
    ("uniform", "if len(ids) < ids.max():"): EITHER,
    ("uniform", "if 4 / len(ids) < ids.max():"): EITHER,
    ("uniform", "if 5 * len(ids) < ids.max():"): EITHER,
    ("uniform", "words = philox((np.arange(ids.max() + 1), step, sample, 0), key(seed)).ravel()[ids]"): MORE,
    ("uniform", "words = philox((np.arange(ids.max() // 4 + 2), step, sample, 0), key(seed)).ravel()[ids]"): MORE,
    ("split_heads", "return x.reshape(B, T, H, C // H).swapaxes(2, 1)"): ORDER,
    ("merge_heads", "return x.swapaxes(2, 1).reshape(B, T, H * D)"): ORDER,
    ("step", "check_step(grads, params, moments)"): "a difference is found in either order",
    ("step", "each = threads.shared().map"): THREADS,
    ("step", "each = map"): THREADS,
    ("step", "each = threads.shared().map if sum((p.size for p, *_ in parts)) >= ELEMENTS else map"): THREADS,
    ("tiles", "rows = max(ELEMENTS * len(arrays[0]) // arrays[0].size, 1)"): ORDER,
    ("tiles", "rows = max(2, ELEMENTS * len(arrays[0]) // arrays[0].size)"): TILES,
    ("tiles", "rows = max(1, ELEMENTS * len(arrays[0]))"): TILES,
    ("tiles", "rows = max(1, arrays[0].size)"): TILES,
    ("tiles", "rows = max(1, arrays[0].size // (ELEMENTS * len(arrays[0])))"): TILES,
    ("tiles", "rows = max(1, ELEMENTS // arrays[0].size)"): TILES,
    ("tiles", "rows = max(1, len(arrays[0]) // arrays[0].size)"): TILES,
    ("clip", "if norm >= max_norm:"): "at equality the factor is 1",
    ("cosine", "progress = (warmup - step) / (steps - 1 - warmup)"): EVEN,
    ("cosine", "progress = (step - warmup) / (warmup - (steps - 1))"): EVEN,
    ("Noise.bytes", "blocks = math.ceil(n)"): "additional bytes are drawn and cut off",
    ("Noise.bytes", "blocks = math.ceil(n * 16)"): "additional bytes are drawn and cut off",
    ("Noise.bytes", "index = np.arange(start, min(blocks, start + COUNTERS), dtype=np.uint32)"): ORDER,
}
