/** What a zstd frame asks of memory (RFC 8878 section 3.1.1.1). */

/** Bytes of a frame's head that say it all. */
export const FRAME_HEAD_BYTES = 18;
/** A window of this many bits is as wide as any that is read: `zstd --ultra -22` and `--long` want 128 MiB. */
export const WIDEST_WINDOW_LOG = 27;
/** What Go's writers (buildkit, podman, containerd) use at most. Wider ones are read one at a time. */
export const USUAL_WINDOW_LOG = 25;

/** Bytes of the window that the frame beginning here wants; undefined when it is none (a skippable one) or too short to say. */
export function windowBytes(head: Uint8Array): number | undefined {
  const view = Buffer.from(head.buffer, head.byteOffset, head.byteLength);
  if (view.length < 6 || view.readUInt32LE(0) !== 0xfd2fb528) return undefined;
  const descriptor = view[4]!;
  if ((descriptor & 0x20) === 0) {
    const base = 2 ** (10 + (view[5]! >> 3));
    return base + (base / 8) * (view[5]! & 7);
  }
  // A single segment: the window is the content.
  const at = 5 + [0, 1, 2, 4][descriptor & 3]!;
  const fieldBytes = [1, 2, 4, 8][descriptor >> 6]!;
  if (view.length < at + fieldBytes) return undefined;
  if (fieldBytes === 8) return Number(view.readBigUInt64LE(at));
  return view.readUIntLE(at, fieldBytes) + (fieldBytes === 2 ? 256 : 0);
}
