import assert from 'node:assert/strict';
import fc from 'fast-check';
import { parseStrictJson } from '../../../layers/transport/strict-json.ts';

const parse = (text: string): unknown => parseStrictJson(Buffer.from(text));

describe('JSON that can be read in one way only', () => {
  it('is what JSON.parse makes of it', () => {
    fc.assert(
      fc.property(fc.jsonValue({ maxDepth: 8 }), fc.nat(4), (value, indent) => {
        const text = JSON.stringify(value, null, indent);
        let strict: unknown;
        try {
          strict = parse(text);
        } catch (error) {
          assert.ok(error instanceof RangeError); // names that differ in case
          assert.ok(Object.keys(value as object).length > 0);
          return;
        }
        assert.deepEqual(strict, JSON.parse(text));
      }),
      { numRuns: Number(process.env['PG_TEST_CASES'] ?? 300) },
    );
  });

  it('has no name twice in one object', () => {
    for (const text of [
      '{"a":1,"a":1}',
      '{"a":1,"\\u0061":2}',
      '[{"b":{"x":{},"y":[],"x":[]}}]',
      '{"layers":[],"Layers":[]}',
      '{"mediaType":"x","x":[{"a":"}"}],"MEDIATYPE" : "y"}',
      '{"config":{"config":{},"Config":{}}}',
      '{"annotations":{"a":"1","a":"2"}}',
      '{"__proto__":1,"__proto__":2}',
    ])
      assert.throws(() => parse(text), /twice in one object/, text);
    for (const text of [
      '{"a":{"a":{"a":[]}},"b":{"a":1}}',
      '[{"size":1},{"size":2}]',
      '{"config":{"Labels":{"size":"1","Size":"2"},"Env":["a","a"]}}',
      '{"a":"\\"a\\":1","b":"{\\"a\\":1,\\"a\\":2}"}',
      '{"A":1,"a":2}',
    ])
      assert.deepEqual(parse(text), JSON.parse(text));
  });

  it('is not deep, and leaves every prototype as it is', () => {
    assert.throws(() => parse('['.repeat(101) + ']'.repeat(101)), /100 deep/);
    assert.throws(() => parse(`${'{"a":'.repeat(500_000)}1${'}'.repeat(500_000)}`), /100 deep/);
    assert.ok(parse('['.repeat(100) + ']'.repeat(100)));
    parse('{"__proto__":{"polluted":1},"constructor":{"prototype":{"polluted":1}}}');
    assert.equal(({} as { polluted?: number }).polluted, undefined);
  });

  it('may hold strings of megabytes', () => {
    const text = JSON.stringify({ a: '\\'.repeat(1 << 20), b: 'x'.repeat(1 << 20) });
    assert.deepEqual(parse(text), JSON.parse(text));
  });
});
