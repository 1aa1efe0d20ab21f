import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { blake2b } from '@noble/hashes/blake2.js';
import { CID } from 'multiformats/cid';
import * as Digest from 'multiformats/hashes/digest';
import { linkOf, protocolOfLink, PROTOCOLS, type ProtocolName } from '../../grid/protocol.ts';

const RAW = 0x55;
const BLAKE2B_256 = 0xb220;

describe('a protocol', () => {
  for (const name of Object.keys(PROTOCOLS) as ProtocolName[]) {
    it(`${name} is named by the CID of its document (else: scripts/with-node scripts/stamp-protocols.mjs)`, () => {
      const document = readFileSync(join(import.meta.dirname, `../../docs/protocols/${name}.md`));
      const cid = CID.createV1(RAW, Digest.create(BLAKE2B_256, blake2b(document, { dkLen: 32 })));
      assert.equal(PROTOCOLS[name], cid.toString());
      assert.deepEqual(Buffer.from(linkOf(name)), Buffer.concat([Buffer.from([0]), cid.bytes]));
      assert.equal(protocolOfLink(linkOf(name)), name);
    });
  }
});
