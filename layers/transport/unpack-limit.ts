/** How far a blob may unpack. gzip says 1,032 bytes in one, zstd tens of thousands: a few megabytes could fill any disk, or keep a machine busy for days. */
import { PgError } from '../../mdm/error.ts';

export interface UnpackLimit {
  /** Bytes that any blob may unpack to. */
  freeBytes: number;
  /** And this many bytes more for each of its own. */
  ratio: number;
}

/** Where nothing is configured (docs/config.md). Layers of real images unpack to 2 to 10 times their size; an empty database file to a thousand. */
export const UNPACK_LIMIT: UnpackLimit = { freeBytes: 16 * 2 ** 30, ratio: 100 };

/** Passes `chunks` on, which `blobBytes` bytes (asked for again and again) unpack to; PgError UNPACKS_TOO_FAR beyond the limit. `what` names the blob. */
export async function* limited(
  chunks: AsyncIterable<Uint8Array>,
  blobBytes: () => number,
  limit: UnpackLimit,
  what: string,
): AsyncGenerator<Uint8Array> {
  let bytes = 0;
  for await (const chunk of chunks) {
    bytes += chunk.length;
    const most = limit.freeBytes + limit.ratio * blobBytes();
    if (bytes > most) {
      throw new PgError('UNPACKS_TOO_FAR', `${what}: ${blobBytes()} bytes unpack to more than ${most}`, {
        hint: 'this is how archives are made that fill disks; if you trust it, raise unpack.free in config.toml',
      });
    }
    yield chunk;
  }
}
