import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { encode, Tagged } from 'cborg';
import fc from 'fast-check';
import {
  bytesOf,
  decodeEnvelope,
  encodeEnvelope,
  mapsOf,
  textOf,
  uintOf,
  type Body,
  type Envelope,
} from '../../grid/envelope.ts';
import { linkOf } from '../../grid/protocol.ts';
import { FrameReader, MAX_BULK_BYTES, MAX_ENVELOPE_BYTES, writeFrame, type Frame } from '../../grid/wire.ts';
import { isPgError } from '../../mdm/error.ts';

const value = fc.letrec((tie) => ({
  value: fc.oneof(
    { depthSize: 'small' },
    fc.constant(null),
    fc.boolean(),
    fc.maxSafeInteger(),
    fc.string({ unit: 'grapheme' }),
    fc.uint8Array(),
    fc.array(tie('value')),
    fc.dictionary(fc.string(), tie('value'), { noNullPrototype: true }),
  ),
})).value;
const body = fc.dictionary(
  fc.string().filter((key) => key !== '__proto__'),
  value,
  { noNullPrototype: true },
) as fc.Arbitrary<Body>;
const envelope: fc.Arbitrary<Envelope> = fc.record({
  protocol: fc.constantFrom('node', 'contents', 'migrate'),
  type: fc.constantFrom('request', 'reply', 'error'),
  id: fc.nat(),
  name: fc.string(),
  body,
});

const refused =
  (...codes: string[]) =>
  (error: unknown): boolean =>
    codes.some((code) => isPgError(error, code)) || assert.fail(`not ${codes.join(' or ')}: ${String(error)}`);

const tagged = (slots: unknown[]): Uint8Array => encode(new Tagged(1735551332, slots));

function framed(message: Envelope, bulk: Uint8Array): Buffer {
  const pipe = new PassThrough({ highWaterMark: 1 << 30 });
  writeFrame(pipe, message, bulk);
  return (pipe.read() as Buffer | null) ?? Buffer.alloc(0);
}

describe('a grid envelope', () => {
  it('is tag 1735551332 of a list that begins with tag 42 of a CID', () => {
    const bytes = Buffer.from(encodeEnvelope({ protocol: 'node', type: 'request', id: 1, name: 'hello', body: {} }));
    // 0xda: a tag of four bytes, "grid"; 0x85: five slots; 0xd8 42: a link; 0x58 39: 39 bytes; 00 01 55 a0e402 20: CIDv1, raw, BLAKE2b-256.
    assert.equal(bytes.subarray(0, 17).toString('hex'), 'da6772696485d82a5827000155a0e40220');
    assert.equal(bytes.subarray(49).toString('hex'), '00016568656c6c6fa0');
  });

  it('comes back as it was', () => {
    fc.assert(fc.property(envelope, (e) => assert.deepEqual(plain(decodeEnvelope(encodeEnvelope(e))), plain(e))));
  });

  it('has one encoding only', () => {
    const link = new Tagged(42, linkOf('node'));
    const good = encodeEnvelope({ protocol: 'node', type: 'request', id: 1, name: 'x', body: { a: 1, b: 2 } });
    const hex = Buffer.from(good).toString('hex');
    const unsorted = hex.replace('616101616202', '616202616101');
    const twice = hex.replace('616101616202', '616101616102');
    const long = hex.replace('616101616202', '61611801616202');
    const float = hex.replace('616101616202', '6161f93c00616202');
    const indefinite = hex.replace('a2616101616202', 'bf616101616202ff');
    for (const wrong of [unsorted, twice, long, float, indefinite, `${hex}00`, hex.slice(0, -2), '']) {
      assert.notEqual(wrong, hex);
      assert.throws(() => decodeEnvelope(Buffer.from(wrong, 'hex')), refused('BAD_MESSAGE'), wrong);
    }
    const others: unknown[][] = [
      [],
      [link],
      [link, 0, 1, 'x'],
      [link, 3, 1, 'x', {}],
      [link, 0, -1, 'x', {}],
      [link, 0, 1, 2, {}],
    ];
    others.push(
      [link, 0, 1, 'x', []],
      [link, 0, 1, 'x', {}, 0],
      [linkOf('node'), 0, 1, 'x', {}],
      [link, 0, 1, 'x', { a: link }],
    );
    others.push([link, 0, 1, 'x', { a: 1.5 }], [link, 0, 1, 'x', { a: undefined }], [link, 0, 2 ** 60, 'x', {}]);
    for (const slots of others)
      assert.throws(() => decodeEnvelope(tagged(slots)), refused('BAD_MESSAGE'), JSON.stringify(slots));
    assert.throws(() => decodeEnvelope(encode([link, 0, 1, 'x', {}])), refused('BAD_MESSAGE'));
    assert.throws(() => decodeEnvelope(Buffer.from('81'.repeat(100_000), 'hex')), refused('BAD_MESSAGE'));
  });

  it('of an unknown protocol is refused as such', () => {
    const link = new Tagged(42, Buffer.concat([linkOf('node').subarray(0, -1), Buffer.from([1])]));
    assert.throws(
      () => decodeEnvelope(encode(new Tagged(1735551332, [link, 0, 1, 'x', {}]))),
      refused('UNKNOWN_PROTOCOL'),
    );
  });

  it('gives fields only of the kind asked for', () => {
    const some: Body = { n: -1, t: 'x', b: new Uint8Array(3), l: [1] };
    assert.throws(() => uintOf(some, 'n'), refused('BAD_MESSAGE'));
    assert.throws(() => textOf(some, 'toString'), refused('BAD_MESSAGE'));
    assert.throws(() => bytesOf(some, 'b', 4), refused('BAD_MESSAGE'));
    assert.throws(() => mapsOf(some, 'l'), refused('BAD_MESSAGE'));
    assert.equal(bytesOf(some, 'b', 3).length, 3);
  });
});

describe('frames', () => {
  it('come out whole, however the bytes are cut', () => {
    const frame = fc.tuple(envelope, fc.uint8Array({ maxLength: 300 }));
    fc.assert(
      fc.property(
        fc.array(frame, { maxLength: 5 }),
        fc.infiniteStream(fc.integer({ min: 1, max: 90 })),
        (frames, cuts) => {
          const bytes = Buffer.concat(frames.map(([e, bulk]) => framed(e, bulk)));
          const got: Frame[] = [];
          const reader = new FrameReader((f) => got.push(f));
          for (let at = 0; at < bytes.length;) {
            const length = cuts.next().value;
            reader.push(bytes.subarray(at, at + length));
            at += length;
          }
          assert.equal(reader.partial, false);
          assert.deepEqual(
            got.map((f) => [plain(f.envelope), f.bulk.toString('hex')]),
            frames.map(([e, bulk]) => [plain(e), Buffer.from(bulk).toString('hex')]),
          );
        },
      ),
    );
  });

  it('hold a whole sector', () => {
    const sector = Buffer.alloc(MAX_BULK_BYTES, 7);
    const bytes = framed({ protocol: 'node', type: 'request', id: 1, name: 'x', body: {} }, sector);
    let got: Frame | undefined;
    new FrameReader((f) => (got = f)).push(bytes);
    assert.ok(got?.bulk.equals(sector));
    assert.throws(
      () => framed({ protocol: 'node', type: 'request', id: 1, name: 'x', body: {} }, Buffer.alloc(MAX_BULK_BYTES + 1)),
      RangeError,
    );
  });

  it('over the bounds are refused before anything is set aside for them', () => {
    for (const [a, b] of [
      [0, 0],
      [MAX_ENVELOPE_BYTES + 1, 0],
      [1, MAX_BULK_BYTES + 1],
      [0xffffffff, 0xffffffff],
    ] as const) {
      const header = Buffer.alloc(8);
      header.writeUInt32LE(a, 0);
      header.writeUInt32LE(b, 4);
      assert.throws(() => new FrameReader(() => assert.fail()).push(header), refused('BAD_MESSAGE'));
    }
  });

  it('of any bytes at all give frames or a refusal, nothing else', () => {
    const noise = fc.uint8Array({ maxLength: 400 });
    // Half of the cases begin with a believable header, so that the envelope's decoder is reached.
    const headed = noise.map((bytes) => {
      const header = Buffer.alloc(8);
      header.writeUInt32LE(Math.max(1, bytes.length), 0);
      return Buffer.concat([header, bytes]);
    });
    fc.assert(
      fc.property(fc.oneof(noise, headed), (bytes) => void survives(bytes)),
      { numRuns: 20_000 },
    );
  }).timeout(30_000);

  it('with a byte changed give frames or a refusal, and never the same message', () => {
    fc.assert(
      fc.property(envelope, fc.nat(), fc.integer({ min: 1, max: 255 }), (e, where, change) => {
        const bytes = framed(e, Buffer.alloc(0));
        const at = 8 + (where % (bytes.length - 8));
        bytes[at]! ^= change;
        for (const frame of survives(bytes)) assert.notDeepEqual(plain(frame.envelope), plain(e));
      }),
      { numRuns: 5000 },
    );
  }).timeout(30_000);
});

function survives(bytes: Uint8Array): Frame[] {
  const frames: Frame[] = [];
  try {
    new FrameReader((frame) => frames.push(frame)).push(bytes);
  } catch (error) {
    refused('BAD_MESSAGE', 'UNKNOWN_PROTOCOL')(error);
  }
  return frames;
}

/** Compared by content: a Buffer and a Uint8Array of the same bytes are the same. */
function plain(message: Envelope): unknown {
  return JSON.parse(
    JSON.stringify(message, (_, v: unknown) => (v instanceof Uint8Array ? `h'${Buffer.from(v).toString('hex')}'` : v)),
  ) as unknown;
}
