import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { checkOwnership } from '../../runtime/migrate-check.ts';
import { changeOwnership } from '../../runtime/migrate-state.ts';
import { type ContainerRecord, recordPath } from '../../runtime/record.ts';

describe('whose a container is when a peer offers it', () => {
  let dir: string;
  beforeEach(() => (dir = mkdtempSync('/var/tmp/pg-test-')));
  afterEach(() => rmSync(dir, { recursive: true, force: true }));

  it("is this node's, too, when its record is damaged", () => {
    const roots = { data: join(dir, 'data'), run: join(dir, 'run'), config: join(dir, 'etc') };
    const record = { id: 'ab'.repeat(32), name: 'web' } as ContainerRecord;
    checkOwnership(roots, record, 1);
    mkdirSync(dirname(recordPath(roots, record.id)), { recursive: true });
    checkOwnership(roots, record, 1);
    writeFileSync(recordPath(roots, record.id), '{"name": "we');
    assert.throws(() => checkOwnership(roots, record, 1), { code: 'CONTAINER_HERE' });
    const peer = { id: 'x', name: 'peer' };
    changeOwnership(roots, record.id, () => ({ epoch: 3, role: 'replica', peer, release: null, settled: false }));
    checkOwnership(roots, record, 3);
    assert.throws(() => checkOwnership(roots, record, 2), { code: 'EPOCH_OLD' });
  });
});
