// Where a byte sequence may be cut, or recognised again, wherever it has been moved to: positions that depend on the
// eight bytes behind them alone. Sixteen positions are looked at in one step; a rolling hash would have to take them
// one after another.

const K1: u32 = 0x9e3779b1;
const K2: u32 = 0x85ebca77;

// @ts-ignore: decorator
@inline
function hit(p: usize, below: u32): bool {
  return load<u32>(p) * K1 + load<u32>(p, 4) * K2 < below;
}

// @ts-ignore: decorator
@inline
function hits(p: usize, k1: v128, k2: v128, below: v128): v128 {
  return i32x4.lt_u(i32x4.add(i32x4.mul(v128.load(p), k1), i32x4.mul(v128.load(p, 4), k2)), below);
}

/**
 * Writes the positions p in [from, to) at which the hash of the eight bytes at p is below `below`, each at least
 * `apart` after the one before, as u32 to `out`, counted from `base`; answers how many. Reads 23 bytes past `to`.
 */
export function find(base: usize, from: usize, to: usize, apart: usize, below: u32, out: usize): u32 {
  const k1 = i32x4.splat(K1);
  const k2 = i32x4.splat(K2);
  const limit = i32x4.splat(below);
  let count: u32 = 0;
  let p = from;
  while (p < to) {
    const any = v128.or(
      v128.or(hits(p, k1, k2, limit), hits(p + 1, k1, k2, limit)),
      v128.or(hits(p + 2, k1, k2, limit), hits(p + 3, k1, k2, limit)),
    );
    if (!v128.any_true(any)) {
      p += 16;
      continue;
    }
    const end = p + 16;
    while (p < end && p < to && !hit(p, below)) p++;
    if (p >= to) break;
    if (p >= end) continue;
    store<u32>(out + 4 * count, <u32>(p - base));
    count++;
    p += apart;
  }
  return count;
}
