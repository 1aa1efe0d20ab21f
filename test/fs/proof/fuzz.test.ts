import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { crc32 } from 'node:zlib';
import { fileURLToPath, pathToFileURL } from 'node:url';
import fc from 'fast-check';
import { isPgError } from '../../../mdm/error.ts';
import { verifyProof } from '../../../fs/proof/proof-file.ts';
import { twinVerify } from './twin.ts';

const CASES = Number(process.env['PG_TEST_CASES'] ?? 3000);
const VECTORS = new URL('../../vectors/proofs.json', import.meta.url);

/** Numbers that break what trusts them. */
const number = fc.oneof(
  fc.constantFrom(0n, 1n, 2n ** 31n - 1n, 2n ** 32n - 1n, 2n ** 48n, 2n ** 53n, 2n ** 63n, 2n ** 64n - 1n),
  fc.bigInt(0n, 1000n),
);
const place = fc.nat(0xff_ffff);
const change = fc.oneof(
  fc.record({ kind: fc.constant('byte' as const), place, value: fc.nat(255) }),
  fc.record({ kind: fc.constant('number' as const), place, value: number, bytes: fc.constantFrom(4, 8) }),
  fc.record({ kind: fc.constant('insert' as const), place, bytes: fc.uint8Array({ minLength: 1, maxLength: 70 }) }),
  fc.record({ kind: fc.constant('remove' as const), place, length: fc.integer({ min: 1, max: 70 }) }),
  fc.record({ kind: fc.constant('splice' as const), place, from: place, length: fc.nat(200), other: fc.nat(100) }),
);
type Change = typeof change extends fc.Arbitrary<infer T> ? T : never;

describe('the verifier of proofs', () => {
  it('needs no disk, no store and no library of the machine', () => {
    const home = new URL('../../../', import.meta.url);
    const seen = new Set<string>();
    const builtin = new Set<string>();
    const visit = (file: string): void => {
      if (seen.has(file)) return;
      seen.add(file);
      for (const [, from] of readFileSync(file, 'utf8').matchAll(
        /^(?:import|export) (?!type )[^;]*? from '([^']+)';/gms,
      )) {
        if (from!.startsWith('.')) visit(fileURLToPath(new URL(from!, pathToFileURL(file))));
        else builtin.add(from!);
      }
    };
    visit(fileURLToPath(new URL('fs/proof/proof-file.ts', home)));
    assert.ok(seen.size > 8);
    assert.deepEqual([...builtin].toSorted(), ['node:assert', 'node:assert/strict', 'node:zlib']);
  });
});

describe('a proof that somebody made up', () => {
  const kept = (JSON.parse(readFileSync(VECTORS, 'utf8')) as { proofs: { proof: string }[] }).proofs.map(({ proof }) =>
    Buffer.from(proof, 'hex'),
  );

  function changed(bytes: Buffer, by: Change): Buffer {
    const at = by.place % bytes.length;
    const copy = Buffer.from(bytes);
    switch (by.kind) {
      case 'byte':
        copy[at] = by.value;
        return copy;
      case 'number': {
        const raw = Buffer.alloc(8);
        raw.writeBigUInt64LE(by.value);
        raw.copy(copy, at, 0, by.bytes);
        return copy;
      }
      case 'insert':
        return Buffer.concat([bytes.subarray(0, at), by.bytes, bytes.subarray(at)]);
      case 'remove':
        return Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + by.length)]);
      case 'splice': {
        const other = kept[by.other % kept.length]!;
        const from = by.from % other.length;
        other.copy(copy, at, from, from + by.length);
        return copy;
      }
    }
  }

  it('is refused, or as true for a second verifier', () => {
    fc.assert(
      fc.property(fc.nat(kept.length - 1), fc.array(change, { minLength: 1, maxLength: 3 }), (which, changes) => {
        let body: Buffer = kept[which]!.subarray(0, -4);
        for (const by of changes) if (body.length > 0) body = changed(body, by);
        const trailer = Buffer.alloc(4);
        trailer.writeUInt32LE(crc32(body));
        const proof = Buffer.concat([body, trailer]);
        let verified;
        try {
          verified = verifyProof(proof);
        } catch (error) {
          assert.ok(isPgError(error), String((error as Error).stack));
          assert.throws(() => twinVerify(proof), 'only one verifier refuses it');
          return;
        }
        const twin = twinVerify(proof);
        assert.deepEqual(
          [twin.root, twin.size, twin.label],
          [Buffer.from(verified.root), verified.size, verified.claim.label],
        );
        assert.equal(twin.inode !== undefined, verified.entry !== undefined);
      }),
      { numRuns: CASES },
    );
  });
});
