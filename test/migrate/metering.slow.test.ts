import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { readMeter } from '../../fs/log/meter-file.ts';
import { type TestNode, useTwoNodes } from './nodes.ts';

describe('what a moved container brings along besides its files', () => {
  const nodes = useTwoNodes('a', 'b');

  afterEach(async () => {
    for (const node of [nodes().a, nodes().b]) await node.do('rm', ['web']);
  });

  it('is what its I/O has cost, its budget, and a checkpoint that the target made', async () => {
    const { a, b } = nodes();
    const command = ['sh', '-c', 'trap "exit 0" TERM; while true; do sleep 0.05; done'];
    const id = await a.run({ name: 'web', command, network: 'none', ioBudget: { written: 20_000_000 } });
    await a.exec('web', 'head -c 5000000 /dev/urandom > /blob; sync /blob');
    const logOf = (node: TestNode): string => join(node.root, 'containers', id, 'log');
    const moved = await a.migrate('web', b);
    assert.equal(moved.running, true);
    assert.ok(
      existsSync(join(logOf(b), 'checkpoint')),
      'nobody ships one: the target has replayed the log before the stop',
    );
    const before = readMeter(logOf(a))!.spent;
    assert.ok(before.written >= 5_000_000);
    assert.match(
      await b.exec('web', 'head -c 40000000 /dev/urandom > /more; sync /more 2>&1; sha256sum /blob | wc -c'),
      /quota exceeded/i,
    );
    await b.do('stop', ['web']);
    const after = readMeter(logOf(b))!.spent;
    assert.ok(after.written > before.written && after.written <= 20_000_000, `${after.written} bytes written`);
  });
});
