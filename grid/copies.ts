import { readNode } from '../layers/tree.ts';
import { isPgError, PgError } from '../mdm/error.ts';
import type { Store } from '../store/store.ts';
import type { Connection, Service } from './connection.ts';
import { bytesOf } from './envelope.ts';
import { MAX_BULK_BYTES } from './wire.ts';

/**
 * Copies of what a peer has lost (docs/protocols/contents.md, "Copies"): `sector-copy` and `node-copy` give the bytes of one sector or trie node by its root. MISSING_SECTOR,
 * NODE_NOT_FOUND, or what reading it throws.
 */
export function copyServices(store: Store): Record<string, Service> {
  return {
    'sector-copy': async ({ body }) => {
      const root = bytesOf(body, 'root', 32);
      const used = store.sectorBytes(root);
      if (used === undefined)
        throw new PgError('MISSING_SECTOR', `sector ${Buffer.from(root).toString('hex')} is not in the store`);
      const bytes = Buffer.alloc(used);
      store.readSectorAt(root, bytes, 0);
      return { bulk: bytes };
    },
    'node-copy': async ({ body }) => {
      const node = readNode(store, bytesOf(body, 'root', 32));
      if (node.length > MAX_BULK_BYTES) throw new PgError('NODE_NOT_FOUND', 'the node is too large to be copied');
      return { bulk: node };
    },
  };
}

/**
 * The bytes of a sector before its zero tail, or of a node, as the peer says they are: whoever asked compares their root. Undefined when the peer does
 * not have it whole, or not at all. PEER_GONE.
 */
export async function askForCopy(
  connection: Connection,
  kind: 'sector' | 'node',
  root: Uint8Array,
): Promise<Buffer | undefined> {
  try {
    return (await connection.request('contents', `${kind}-copy`, { root })).bulk;
  } catch (error) {
    if (!isPgError(error) || isPgError(error, 'PEER_GONE')) throw error;
    return undefined;
  }
}
