import assert from 'node:assert/strict';
import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { verifyProof } from '../../fs/proof/proof-file.ts';
import type { MovePlan } from '../../runtime/migrate-report.ts';
import { type TestNode, type TwoNodes, useTwoNodes } from './nodes.ts';

const IMPATIENT = join(import.meta.dirname, 'impatient.ts');
/** A shell that ends at once when it is told to, and notes that it was started. */
const SERVICE = ['sh', '-c', 'trap "exit 0" TERM; echo start >> /starts; while true; do sleep 0.05; done'];
const port = (hostPort: number) => ({ hostIp: '', hostPort, containerPort: 80, protocol: 'tcp' as const });

describe('moving a container', () => {
  const twoNodes = useTwoNodes('a', 'b');
  let nodes: TwoNodes;
  let a: TestNode;
  let b: TestNode;

  before(() => {
    nodes = twoNodes();
    ({ a, b } = nodes);
  });
  afterEach(async function () {
    this.timeout(60_000);
    for (const node of [a, b]) {
      for (const { id } of await node.do<{ id: string }[]>('ps')) await node.do('rm', [id]);
    }
  });

  it('takes everything that it wrote along, with equal roots, and leaves a copy that cannot run', async () => {
    const id = await a.run({ name: 'web', command: SERVICE, network: 'none', env: ['COLOUR=green'] });
    const sum = await a.exec(
      'web',
      'head -c 3000000 /dev/urandom > /blob; mkdir /d; chmod 700 /d; ln -s /blob /d/l; rm /www/index.html; sha256sum /blob',
    );
    const plan = await a.do<MovePlan>('plan', ['web', 'b']);
    assert.equal(plan.running, true);
    assert.ok(plan.sectors > 0 && plan.logBytes > 3_000_000 && plan.imageBytes > 0);
    assert.equal(await b.ps('web'), undefined, 'a dry run changes nothing');
    assert.equal((await a.ps('web'))!.status, 'running');

    const moved = await a.migrate('web', b);
    assert.deepEqual([moved.epoch, moved.running, moved.startError], [1, true, null]);
    assert.ok(moved.downtimeMs! > 0);
    assert.equal((await b.ps('web'))!.id, id);
    assert.equal(
      await b.exec('web', 'sha256sum /d/l | sed "s,/d/l,/blob,"; cat /starts; stat -c %a /d; ls /www; echo $COLOUR'),
      `${sum}start\nstart\n700\ngreen\n`,
    );
    const left = (await a.ps('web'))!;
    assert.deepEqual([left.status, left.role, left.epoch, left.settled], ['exited', 'released', 1, true]);
    await assert.rejects(a.do('start', ['web']), { code: 'CONTAINER_MOVED' });
    await assert.rejects(a.migrate('web', b), { code: 'CONTAINER_MOVED' });
    const position = await b.do<{ size: number; epoch: number }>('position', ['web']);
    assert.ok(position.size >= moved.size && position.epoch === 1);
  });

  it('back and forth ships what has changed, and hardly more', async () => {
    await a.run({ name: 'web', command: SERVICE, network: 'none' });
    await a.exec('web', 'head -c 5000000 /dev/urandom > /blob');
    await a.migrate('web', b);
    const changed = 400_000;
    let sum = await b.exec('web', `head -c ${changed} /dev/urandom > /more; sha256sum /blob /more`);
    const back = await b.migrate('web', a);
    assert.deepEqual([back.sectors, back.epoch], [0, 2]);
    assert.ok(back.wireBytes <= 1.1 * changed, `${back.wireBytes} bytes for ${changed}`);
    assert.equal(await a.exec('web', 'sha256sum /blob /more'), sum);
    assert.equal((await b.ps('web'))!.role, 'released');
    sum = await a.exec(
      'web',
      `dd if=/dev/urandom of=/blob bs=1000 seek=77 count=300 conv=notrunc 2>/dev/null; sha256sum /blob /more`,
    );
    const again = await a.migrate('web', b);
    assert.ok(again.wireBytes <= 1.1 * 300_000, `${again.wireBytes} bytes for 300000`);
    assert.equal(await b.exec('web', 'sha256sum /blob /more'), sum);
    assert.equal(again.epoch, 3);
  });

  it('whose log was cleaned sends what is there of it, and back only what has changed', async function () {
    this.timeout(120_000);
    const id = await a.run({ name: 'web', command: SERVICE, network: 'none' });
    const written = 48 << 20;
    const logOf = (node: TestNode): string => join(node.root, 'containers', id, 'log/log');
    const onDisk = (node: TestNode): number => statSync(logOf(node)).blocks * 512;
    await a.exec('web', `head -c ${written} /dev/urandom > /gone; echo kept > /note; sync; rm /gone; sync`);
    const end = Date.now() + 60_000;
    while (onDisk(a) > 20 << 20 && Date.now() < end) await sleep(200);
    assert.ok(onDisk(a) <= 20 << 20, `${onDisk(a)} bytes after cleaning`);
    const moved = await a.migrate('web', b);
    assert.ok(moved.size > written && moved.wireBytes < 24 << 20, `${moved.wireBytes} bytes for ${moved.size}`);
    assert.equal(await b.exec('web', 'cat /note; ls /'), await b.exec('web', 'echo kept; ls / '));
    assert.ok(onDisk(b) <= 24 << 20);
    await b.exec('web', 'head -c 300000 /dev/urandom > /more');
    const back = await b.migrate('web', a);
    assert.ok(back.wireBytes <= 1.1 * 300_000, `${back.wireBytes} bytes for 300000`);
    assert.equal(await a.exec('web', 'cat /note; wc -c < /more'), 'kept\n300000\n');
  });

  it('that does not run moves and does not run there', async () => {
    await a.run({ name: 'web', command: SERVICE, network: 'none' });
    await a.exec('web', 'echo kept > /note');
    await a.do('stop', ['web']);
    const moved = await a.migrate('web', b);
    assert.deepEqual([moved.running, moved.downtimeMs, moved.startError], [false, null, null]);
    assert.notEqual((await b.ps('web'))!.status, 'running');
    assert.equal(await b.do('start', ['web']), true);
    assert.equal(await b.exec('web', 'cat /note'), 'kept\n');
  });

  it('proves its files there under the epoch that began, and no more where it was', async () => {
    const id = await a.run({ name: 'web', command: SERVICE, network: 'none' });
    await a.exec('web', 'seq 30000 > /numbers');
    const proved = async (node: TestNode) =>
      verifyProof(Buffer.from(await node.do<string>('prove', ['web', '/numbers']), 'base64'));
    const before = await proved(a);
    const moved = await a.migrate('web', b);
    const after = await proved(b);
    assert.deepEqual([before.claim.epoch, after.claim.epoch], [0, moved.epoch]);
    assert.deepEqual([before.claim.label, after.claim.label], [`container/${id}`, `container/${id}`]);
    assert.ok(before.size <= moved.size && moved.size <= after.claim.size);
    assert.equal(after.entry!.size, before.entry!.size);
    await assert.rejects(a.do('prove', ['web', '/numbers']), { code: 'CONTAINER_MOVED' });
  });

  it('publishes its ports there', async () => {
    await a.run({
      name: 'web',
      command: ['httpd', '-f', '-h', '/www'],
      ports: [port(8080)],
      network: 'bridge',
      stopTimeoutSec: 1,
    });
    await a.migrate('web', b);
    assert.equal(await a.do('fetch', [`http://${b.address}:8080/`]), 'hello from the image\n');
  });

  it('with --rm is not removed by the move, but by its end', async () => {
    await a.run({ name: 'once', command: SERVICE, network: 'none', autoRemove: true });
    await a.exec('once', 'echo kept > /note');
    await a.migrate('once', b);
    assert.equal(await b.exec('once', 'cat /note'), 'kept\n');
    await b.do('stop', ['once']);
    assert.equal(await b.ps('once'), undefined);
  });

  it('says that volumes stay', async () => {
    await a.run({
      name: 'web',
      command: SERVICE,
      network: 'none',
      volumes: [{ kind: 'volume', source: 'data', target: '/data', readOnly: false }],
    });
    await a.exec('web', 'echo on a > /data/x');
    const moved = await a.migrate('web', b);
    assert.match(moved.notes.join('\n'), /volume data on \/data does not travel/);
    assert.equal(await b.exec('web', 'ls /data'), '');
  });

  it('that writes all the time loses no line', async () => {
    const writer =
      'trap "exit 0" TERM; i=$(wc -l < /lines 2>/dev/null || echo 0); while true; do i=$((i+1)); echo $i >> /lines; done';
    await a.run({ name: 'web', command: ['sh', '-c', writer], network: 'none' });
    await sleep(500);
    await a.migrate('web', b);
    await sleep(300);
    await b.do('stop', ['web']);
    await b.do('start', ['web']);
    // Every number once, in order: nothing was lost, and nothing was written twice.
    assert.equal(await b.exec('web', 'awk "NR != \\$1 { print NR, \\$1; exit }" /lines'), '');
  });

  it('while the cable is pulled stays here and runs on; with the cable back it goes on from what has arrived', async () => {
    const impatient = { NODE_OPTIONS: `--no-warnings --import=${IMPATIENT}` };
    await b.stopDaemon();
    await b.startDaemon(impatient);
    await a.run({ name: 'web', command: SERVICE, network: 'none' });
    const sum = await a.exec('web', 'head -c 150000000 /dev/urandom > /blob; sha256sum /blob');
    const id = (await a.ps('web'))!.id;
    const move = assert.rejects(a.migrate('web', b, impatient), { code: 'PEER_GONE' });
    const copy = join(b.root, 'containers', id, 'log/log');
    while (!existsSync(copy) || statSync(copy).size < 1 << 20) await sleep(5);
    nodes.cable('down');
    await move;
    assert.equal((await a.ps('web'))!.status, 'running');
    assert.equal(await a.exec('web', 'cat /starts'), 'start\n');
    nodes.cable('up');
    // The target notices by itself that nobody is there, and lets go of the copy.
    while (!/nothing was heard|was cut/.test(b.daemonLog())) await sleep(100);
    const moved = await a.migrate('web', b);
    assert.ok(moved.logBytes < 150_000_000, 'what had arrived is not sent again');
    assert.equal(await b.exec('web', 'sha256sum /blob'), sum);
    await b.stopDaemon();
    await b.startDaemon();
  }).timeout(120_000);

  describe('is refused, and it runs on,', () => {
    beforeEach(async () => {
      await a.run({ name: 'web', command: SERVICE, network: 'none' });
    });
    afterEach(async () => {
      assert.equal((await a.ps('web'))!.status, 'running');
      assert.equal(await a.exec('web', 'cat /starts'), 'start\n', 'it was never stopped');
    });

    it('to a peer that is not known', async () => {
      await assert.rejects(a.do('migrate', ['web', 'nowhere', 1]), { code: 'PEER_NOT_FOUND' });
    });

    it('when there is no such container', async () => {
      await assert.rejects(a.do('migrate', ['nothing', 'b', 1]), { code: 'NO_SUCH_CONTAINER' });
    });

    it('when its name is taken there', async () => {
      await a.run({ name: 'other', command: SERVICE, network: 'none' });
      await a.migrate('other', b);
      await a.do('rm', ['other']);
      await a.run({ name: 'other', command: SERVICE, network: 'none' });
      await assert.rejects(a.migrate('other', b), { code: 'NAME_TAKEN' });
      assert.equal((await a.ps('other'))!.status, 'running');
      assert.equal((await b.ps('other'))!.role, 'owner');
    });

    it('when its port is taken there', async () => {
      await a.run({
        name: 'http',
        command: ['httpd', '-f', '-h', '/www'],
        ports: [port(8081)],
        network: 'bridge',
        stopTimeoutSec: 1,
      });
      await a.migrate('http', b);
      await a.do('rm', ['http']);
      await a.run({
        name: 'http2',
        command: ['httpd', '-f', '-h', '/www'],
        ports: [port(8081)],
        network: 'bridge',
        stopTimeoutSec: 1,
      });
      await assert.rejects(a.migrate('http2', b), { code: 'PORT_TAKEN' });
      assert.equal((await a.ps('http2'))!.status, 'running');
    });

    it('while another command is moving it', async () => {
      await a.exec('web', 'head -c 20000000 /dev/urandom > /blob; sync; rm /blob');
      const results = await Promise.allSettled([a.migrate('web', b), a.migrate('web', b)]);
      const refused = results.filter((r) => r.status === 'rejected').map((r) => (r.reason as { code?: string }).code);
      assert.ok(
        refused.length === 1 && ['MOVE_UNDER_WAY', 'CONTAINER_MOVED', 'CONTAINER_MOVING'].includes(refused[0]!),
        String(refused),
      );
      await b.migrate('web', a);
      // Started three times by now: for the check after this test, begin anew.
      await a.exec('web', 'echo start > /starts');
    });

    it('when the daemon there does not run', async () => {
      await b.stopDaemon();
      try {
        await assert.rejects(a.migrate('web', b), { code: 'PEER_UNREACHABLE' });
      } finally {
        await b.startDaemon();
      }
    });

    it('when its image, its size or its age do not fit', async () => {
      const record = await a.do<object>('record', ['web']);
      const offer = {
        record: JSON.stringify(record),
        epoch: 0,
        running: true,
        platform: 'linux/amd64',
        bytes: 0,
        dry: true,
      };
      const ask = (change: object): Promise<unknown> =>
        a.do('ask', ['b', 'migrate', 'prepare', { ...offer, ...change }]);
      await ask({});
      await assert.rejects(ask({ bytes: 2 ** 50 }), { code: 'NO_SPACE' });
      await assert.rejects(ask({ platform: 'linux/s390x' }), { code: 'PLATFORM' });
      await assert.rejects(ask({ record: '{}' }), { code: 'BAD_MESSAGE' });
      await assert.rejects(ask({ record: JSON.stringify({ ...record, formatVersion: 2 }) }), { code: 'BAD_RECORD' });
      await assert.rejects(ask({ record: JSON.stringify({ ...record, id: '../../etc' }) }), { code: 'BAD_MESSAGE' });
      await assert.rejects(ask({ record: JSON.stringify({ ...record, name: '../x' }) }), { code: 'BAD_NAME' });
      assert.equal(await b.ps('web'), undefined);
    });
  });

  it('refuses a log of an older epoch, and a container that is here', async () => {
    await a.run({ name: 'web', command: SERVICE, network: 'none' });
    const record = JSON.stringify(await a.do<object>('record', ['web']));
    const offer = { record, running: false, platform: 'linux/amd64', bytes: 0, dry: true };
    await a.migrate('web', b);
    await assert.rejects(a.do('ask', ['b', 'migrate', 'prepare', { ...offer, epoch: 0 }]), { code: 'CONTAINER_HERE' });
    await b.migrate('web', a);
    await assert.rejects(a.do('ask', ['b', 'migrate', 'prepare', { ...offer, epoch: 1 }]), { code: 'EPOCH_OLD' });
    await a.do('ask', ['b', 'migrate', 'prepare', { ...offer, epoch: 2 }]);
  });

  it('goes on when the daemon of either node is killed', async () => {
    await a.run({ name: 'web', command: SERVICE, network: 'none' });
    await a.migrate('web', b);
    for (const node of [a, b]) {
      const pid = (await node.daemonPid())!;
      process.kill(pid, 'SIGKILL');
      while (existsSync(join('/proc', String(pid), 'exe'))) await sleep(10);
    }
    assert.equal(await b.exec('web', 'cat /starts'), 'start\nstart\n');
    await Promise.all([a.startDaemon(), b.startDaemon()]);
    assert.equal((await b.ps('web'))!.status, 'running');
    await assert.rejects(b.startDaemon(), { code: 'NODE_RUNNING' });
  });
});
