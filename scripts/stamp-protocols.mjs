// Writes the CIDs of the protocol documents (docs/protocols/NAME.md) into grid/protocol.ts. Run it after changing a document.
import { readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { blake2b } from '@noble/hashes/blake2.js';
import { base32 } from 'multiformats/bases/base32';

const home = join(dirname(fileURLToPath(import.meta.url)), '..');
const path = join(home, 'grid/protocol.ts');

/** CIDv1 (01), raw (55), BLAKE2b-256 multihash (a0e402, 20). */
const cidOf = (bytes) =>
  base32.encode(Buffer.concat([Buffer.from('0155a0e40220', 'hex'), blake2b(bytes, { dkLen: 32 })]));

writeFileSync(
  path,
  readFileSync(path, 'utf8').replace(
    /^( {2}(\w+): ')b[a-z2-7]+(',)$/gm,
    (_, before, name, after) => before + cidOf(readFileSync(join(home, `docs/protocols/${name}.md`))) + after,
  ),
);
