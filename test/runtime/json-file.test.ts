import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { isPgError } from '../../mdm/error.ts';
import { readJson, writeJsonAtomic } from '../../runtime/json-file.ts';

describe('a JSON file of a container', () => {
  let dir: string;
  beforeEach(() => (dir = mkdtempSync('/var/tmp/pg-test-')));
  afterEach(() => rmSync(dir, { recursive: true, force: true }));

  const value = {
    name: 'web',
    list: [1, 2.5, 'drei'],
    nothing: null,
    nested: { 7: true, left: undefined, text: 'ä"\n' },
  };

  it('comes back as it was, and without its checksum when somebody wrote it by hand', () => {
    const path = join(dir, 'a.json');
    writeJsonAtomic(path, value);
    assert.deepEqual(readJson(path), JSON.parse(JSON.stringify(value)));
    writeFileSync(path, '{"name":"web"}');
    assert.deepEqual(readJson(path), { name: 'web' });
    assert.equal(readJson(join(dir, 'none.json')), undefined);
  });

  it('is damaged, or says the same, whichever of its bits is flipped', () => {
    const path = join(dir, 'a.json');
    writeJsonAtomic(path, value);
    const whole = readFileSync(path);
    const expected = JSON.stringify(readJson(path));
    let damaged = 0;
    for (let bit = 0; bit < 8 * whole.length; bit++) {
      const flipped = Buffer.from(whole);
      flipped[bit >> 3]! ^= 1 << (bit & 7);
      writeFileSync(path, flipped);
      try {
        const { crc32: _, ...rest } = readJson<Record<string, unknown>>(path)!;
        const known = Object.fromEntries(Object.entries(rest).filter(([key]) => key in value));
        assert.equal(JSON.stringify(known), expected, `bit ${bit}`);
      } catch (error) {
        assert.ok(isPgError(error, 'BAD_RECORD'), String(error));
        damaged++;
      }
    }
    assert.ok(damaged > 4 * whole.length);
  });
});
