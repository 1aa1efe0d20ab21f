import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { isPgError } from '../../mdm/error.ts';
import { readJson, writeJsonAtomic } from '../../runtime/json-file.ts';
import { readRecord, readState, recordPath, statePath } from '../../runtime/record.ts';
import type { Roots } from '../../store/paths.ts';
import { shaped, text as isText } from '../../store/shape.ts';
import { sampleRecord } from './sample-record.ts';

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

  it('is damaged when it is something else than an object, or of another shape', () => {
    const path = join(dir, 'a.json');
    for (const text of [
      '',
      'null',
      '7',
      '[]',
      '"x"',
      '{',
      '\0\0\0',
      '{"name":7}',
      '{"name":null}',
      `{"name":"x","a":"${'\0'}"}`,
    ]) {
      writeFileSync(path, text);
      assert.throws(() => readJson(path, shaped({ name: isText })), { code: 'BAD_RECORD' }, text);
    }
    writeFileSync(path, '');
    truncateSync(path, 1 << 30);
    assert.throws(() => readJson(path), { code: 'BAD_RECORD', message: /it has 1073741824 bytes/ });
  });

  it('of a container is damaged whichever member is something else; a state then is that of one that was lost', () => {
    const roots: Roots = { data: dir, run: dir, config: dir };
    const id = 'c'.repeat(64);
    const record = sampleRecord(id, 'web');
    mkdirSync(dirname(recordPath(roots, id)), { recursive: true });
    const check = (changed: object): void => {
      writeFileSync(recordPath(roots, id), JSON.stringify(changed));
      assert.throws(() => readRecord(roots, id), { code: 'BAD_RECORD' }, JSON.stringify(changed));
    };
    writeFileSync(recordPath(roots, id), JSON.stringify(record));
    assert.deepEqual(readRecord(roots, id), record);
    for (const wrong of [[[7]], { a: { b: 1 } }]) {
      for (const key of Object.keys(record)) check({ ...record, [key]: wrong });
      for (const key of Object.keys(record.config))
        if (key !== 'resources') check({ ...record, config: { ...record.config, [key]: wrong } });
    }
    check({ ...record, id: 'd'.repeat(64) });
    for (const state of [
      'null',
      '{"status":7}',
      '{"initPid":"1"}',
      '{"network":{}}',
      '{"cgroups":[]}',
      '{"position":{"size":-1}}',
    ]) {
      writeFileSync(statePath(roots, id), state);
      assert.deepEqual([readState(roots, id).status, readState(roots, id).shimPid], ['running', -1], state);
    }
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
