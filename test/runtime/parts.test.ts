import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { commandWords, separateCommand, SWITCHES } from '../../cli/argv.ts';
import Create from '../../cli/commands/create.ts';
import Exec from '../../cli/commands/exec.ts';
import Run from '../../cli/commands/run.ts';
import Top from '../../cli/commands/top.ts';
import { parsePorts, parseVolume } from '../../cli/run-options.ts';
import { parseSize } from '../../cli/sizes.ts';
import { isPgError } from '../../mdm/error.ts';
import { containerCapabilities } from '../../runtime/capabilities.ts';
import type { Request } from '../../runtime/control.ts';
import { parseRequest, parseTerminalSize } from '../../runtime/control-request.ts';
import { writeJsonAtomic, readJson } from '../../runtime/json-file.ts';
import { tryLock } from '../../runtime/lock.ts';
import { newId, randomName } from '../../runtime/names.ts';
import {
  chooseSubnet,
  formatIp,
  parseIp,
  releaseAddress,
  routedNetworks,
  takeAddress,
} from '../../runtime/network/address.ts';
import { readOutput } from '../../runtime/output-reader.ts';
import { initialState } from '../../runtime/record.ts';
import { customSeccomp, defaultSeccomp } from '../../runtime/seccomp.ts';
import { OutputLog } from '../../runtime/shim/output-log.ts';
import { restartDelayMs } from '../../runtime/shim/restart.ts';
import { signalNumber } from '../../runtime/signals.ts';
import { resolveUser } from '../../runtime/users.ts';

describe('parts of the runtime', () => {
  let dir = '';
  beforeEach(() => (dir = mkdtempSync('/var/tmp/pg-test-')));
  afterEach(() => rmSync(dir, { recursive: true }));

  describe('the command line', () => {
    it('knows which flags of each command have no value', () => {
      for (const [name, command] of Object.entries({ run: Run, create: Create, exec: Exec, top: Top })) {
        const long: string[] = ['help'];
        let short = '';
        for (const [flag, { type, char, allowNo }] of Object.entries(
          (command.flags ?? {}) as Record<string, { type: string; char?: string; allowNo?: boolean }>,
        )) {
          if (type !== 'boolean') continue;
          long.push(flag, ...(allowNo === true ? [`no-${flag}`] : []));
          short += char ?? '';
        }
        const known = SWITCHES[name]!;
        assert.deepEqual(known.long.toSorted(), long.toSorted(), name);
        assert.deepEqual([...known.short].toSorted(), [...short].toSorted(), name);
      }
    });

    it('separates what is pg’s from what is the container’s', () => {
      const cases: [string, string][] = [
        ['run -it --rm img sh -c x', 'run -it --rm img -- sh -c x'],
        ['run -e A --name x -p 1:2 img', 'run -e A --name x -p 1:2 img --'],
        ['run -eA -itv a:/b img ls --help', 'run -eA -itv a:/b img -- ls --help'],
        ['run --name=x img -- a', 'run --name=x img -- -- a'],
        ['run -d -- img a', 'run -d img -- a'],
        ['--root d run img a', '--root d run img a'],
        ['exec -it c sh', 'exec -it c -- sh'],
        ['ps -a', 'ps -a'],
        ['run --help', 'run --help'],
      ];
      for (const [before, after] of cases) assert.equal(separateCommand(before.split(' ')).join(' '), after);
      assert.deepEqual(commandWords(['-it', 'img', '--', 'a', '--', 'a']), ['a', '--', 'a']);
    });

    it('reads ports, sizes and volumes as docker does', () => {
      const port = { hostIp: '', hostPort: 0, containerPort: 80, protocol: 'tcp' };
      assert.deepEqual(parsePorts('80'), [port]);
      assert.deepEqual(parsePorts('8080:80/udp'), [{ ...port, hostPort: 8080, protocol: 'udp' }]);
      assert.deepEqual(parsePorts('127.0.0.1::80'), [{ ...port, hostIp: '127.0.0.1' }]);
      assert.deepEqual(parsePorts('[::1]:81:80'), [{ ...port, hostIp: '::1', hostPort: 81 }]);
      assert.deepEqual(
        parsePorts('90-91:80-81').map((p) => [p.hostPort, p.containerPort]),
        [
          [90, 80],
          [91, 81],
        ],
      );
      for (const wrong of ['', 'a', '1:2:3:4', '70000', '80/icmp', '1-2:3', '5-3'])
        assert.throws(() => parsePorts(wrong), /Invalid/);
      assert.equal(parseSize('1.5g', 'x'), 1.5 * 2 ** 30);
      assert.equal(parseSize('512M', 'x'), 512 << 20);
      assert.equal(parseSize('10kb', 'x'), 10240);
      for (const wrong of ['', '-1', '1x', 'g']) assert.throws(() => parseSize(wrong, 'x'), /invalid x/);
      assert.deepEqual(parseVolume('/a:/b:ro'), { kind: 'bind', source: '/a', target: '/b', readOnly: true });
      assert.equal(parseVolume('name:/b').kind, 'volume');
      for (const wrong of ['a:b', '/a:/b:rx', ':/b', '/a:', 'a/b:/c']) assert.throws(() => parseVolume(wrong));
    });
  });

  it('understands signals', () => {
    assert.deepEqual(['TERM', 'sigkill', '9', 'RTMIN+3', 'SIGRTMAX'].map(signalNumber), [15, 9, 9, 37, 64]);
    for (const wrong of ['', '0', '65', 'NOPE', 'RTMIN-']) assert.throws(() => signalNumber(wrong), /Invalid signal/);
  });

  it('resolves users and groups', () => {
    const passwd = 'root:x:0:0::/root:/bin/sh\na:x:7:8::/home/a:\n# no\nbroken\n';
    const group = 'root:x:0:\ng:x:50:a,b\nh:x:51:b\n';
    assert.deepEqual(resolveUser('', passwd, group), { uid: 0, gid: 0, additionalGids: [0], home: '/root' });
    assert.deepEqual(resolveUser('a', passwd, group), { uid: 7, gid: 8, additionalGids: [8, 50], home: '/home/a' });
    assert.deepEqual(resolveUser('7', passwd, group), { uid: 7, gid: 8, additionalGids: [8, 50], home: '/home/a' });
    assert.deepEqual(resolveUser('a:h', passwd, group), { uid: 7, gid: 51, additionalGids: [51], home: '/home/a' });
    assert.deepEqual(resolveUser('99:98', '', ''), { uid: 99, gid: 98, additionalGids: [98], home: '/' });
    for (const wrong of ['b', 'a:nope', '99999999999']) assert.throws(() => resolveUser(wrong, passwd, group));
  });

  it('gives capabilities by docker’s rules', () => {
    const all = (1n << 41n) - 1n;
    assert.equal(containerCapabilities([], [], false, all).length, 14);
    assert.equal(containerCapabilities([], [], true, all).length, 41);
    assert.equal(containerCapabilities(['ALL'], ['SYS_ADMIN'], false, all).length, 40);
    assert.deepEqual(containerCapabilities(['net_admin'], ['all'], false, all), ['CAP_NET_ADMIN']);
    assert.equal(containerCapabilities([], [], true, all & ~(1n << 24n)).length, 40, 'not what we have not');
    assert.throws(() => containerCapabilities(['FLY'], [], false, all), /unknown capability/);
  });

  it('fits the seccomp profile to the capabilities', () => {
    type Profile = { syscalls: { names: string[]; action: string; args?: unknown[] }[] };
    const allowed = (caps: string[], name: string): boolean =>
      (defaultSeccomp(new Set(caps)) as Profile).syscalls.some(
        (rule) => rule.action === 'SCMP_ACT_ALLOW' && rule.names.includes(name) && rule.args === undefined,
      );
    assert.ok(allowed([], 'read') && !allowed([], 'mount') && !allowed([], 'clone') && !allowed([], 'bpf'));
    assert.ok(
      allowed(['CAP_SYS_ADMIN'], 'mount') && allowed(['CAP_BPF'], 'bpf') && allowed(['CAP_SYS_ADMIN'], 'clone'),
    );
    const custom = customSeccomp(
      JSON.stringify({
        defaultAction: 'SCMP_ACT_ALLOW',
        syscalls: [
          { names: ['a'], action: 'SCMP_ACT_ERRNO', includes: { caps: ['CAP_KILL'] } },
          { names: ['b'], action: 'SCMP_ACT_ERRNO', excludes: { caps: ['CAP_KILL'] } },
        ],
      }),
      new Set(['CAP_KILL']),
    ) as Profile;
    assert.deepEqual(
      custom.syscalls.map((rule) => rule.names),
      [['a']],
    );
  });

  it('takes of a control socket requests only', () => {
    const exec = { args: ['a'], tty: true, env: ['A=b'], user: null, workdir: '/', privileged: true };
    const attach = { stdin: true, stdout: true, stderr: false, size: { rows: 25, columns: 80 } };
    const requests: Request[] = [
      { op: 'exec', exec: { ...exec, stdin: false }, attach },
      { op: 'start', roots: { data: '/d', run: '/r', config: '/c' }, id: 'a'.repeat(64), attach: null },
      { op: 'stop', signal: null, timeoutSec: -1 },
      { op: 'namespace', claim: { size: 1, epoch: 0, root: 'b'.repeat(64), label: 'l' } },
      { op: 'budget', budget: { written: 5 } },
      { op: 'wait' },
    ];
    const refusal = (error: unknown) => isPgError(error, 'BAD_REQUEST') || isPgError(error, 'UNKNOWN_REQUEST');
    for (const request of requests) assert.deepEqual(parseRequest(JSON.stringify(request)), request);
    fc.assert(
      fc.property(fc.constantFrom(...requests), fc.nat(), fc.jsonValue(), (request, where, value) => {
        const paths = [...leaves(request)];
        const changed = structuredClone(request);
        const path = paths[where % paths.length]!;
        const at = path.slice(0, -1).reduce<Record<string, unknown>>((map, key) => map[key] as never, changed as never);
        at[path.at(-1)!] = value;
        try {
          // What is taken is of the same shape.
          assert.equal(typeof parseRequest(JSON.stringify(changed)).op, 'string');
        } catch (error) {
          assert.ok(refusal(error), String(error));
        }
      }),
    );
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.json()), (line) => assert.throws(() => parseRequest(line), refusal)),
    );
    assert.deepEqual(parseTerminalSize(Buffer.from('{"rows":1,"columns":2}')), { rows: 1, columns: 2 });
    for (const wrong of ['', '{', 'null', '{"rows":1}', '{"rows":-1,"columns":2}', '{"rows":1,"columns":65536}'])
      assert.throws(() => parseTerminalSize(Buffer.from(wrong)), refusal);
  });

  it('waits longer from restart to restart, and not at all when it should not', () => {
    const now = Date.now();
    const state = { ...initialState(), startedAt: new Date(now).toISOString(), exitCode: 1 };
    const always = { name: 'always', maximumRetries: 0 } as const;
    assert.deepEqual(
      [0, 1, 2, 3, 30].map((restartCount) => restartDelayMs(always, { ...state, restartCount }, now)),
      [100, 200, 400, 800, 60_000],
    );
    assert.equal(restartDelayMs(always, { ...state, restartCount: 9 }, now + 60_000), 100, 'it ran well');
    assert.equal(restartDelayMs(always, { ...state, stoppedByUser: true }, now), null);
    const failing = { name: 'on-failure', maximumRetries: 2 } as const;
    assert.equal(restartDelayMs(failing, { ...state, exitCode: 0 }, now), null);
    assert.equal(restartDelayMs(failing, { ...state, restartCount: 1 }, now), 200);
    assert.equal(restartDelayMs(failing, { ...state, restartCount: 2 }, now), null);
  });

  describe('addresses', () => {
    it('come from a subnet that nothing is routed to', () => {
      const table =
        'Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\neth0\t00000000\t010010AC\t0003\t0\t0\t0\t00000000\neth0\t0000900A\t00000000\t0001\t0\t0\t0\t0000F0FF\n';
      const routes = routedNetworks(table);
      assert.deepEqual(routes, [{ network: parseIp('10.144.0.0')!, mask: parseIp('255.240.0.0')! }]);
      assert.throws(() => chooseSubnet('x', routes), /no free subnet/, 'the whole pool is routed');
      const first = chooseSubnet('x', []);
      assert.equal(chooseSubnet('x', []), first, 'the same for the same installation');
      const second = chooseSubnet('x', [{ network: first, mask: parseIp('255.255.255.255')! }]);
      assert.notEqual(second, first);
    });

    it('are each taken once, given back, and taken from the dead when there are no others', () => {
      const subnet = parseIp('10.144.0.0')!;
      const held = (): boolean => true;
      assert.equal(takeAddress(dir, subnet, 'a', held), '10.144.0.2');
      assert.equal(takeAddress(dir, subnet, 'b', held), '10.144.0.3');
      releaseAddress(dir, '10.144.0.2', 'b');
      assert.equal(takeAddress(dir, subnet, 'c', held), '10.144.0.4', 'only its owner gives one back');
      releaseAddress(dir, '10.144.0.2', 'a');
      assert.equal(takeAddress(dir, subnet, 'd', held), '10.144.0.2');
      for (let i = 5; i < 4095; i++) writeFileSync(join(dir, formatIp(subnet + i)), `n${i}`);
      assert.throws(() => takeAddress(dir, subnet, 'more', held), /all addresses/);
      assert.equal(
        takeAddress(dir, subnet, 'more', (owner) => owner !== 'n77'),
        '10.144.0.77',
      );
    });
  });

  it('writes JSON files whole, and locks by file', () => {
    const path = join(dir, 'x.json');
    assert.equal(readJson(path), undefined);
    writeJsonAtomic(path, { a: 1 }, true);
    assert.deepEqual(readJson(path), { a: 1 });
    const lock = tryLock(join(dir, 'lock'));
    assert.equal(tryLock(join(dir, 'lock')), undefined);
    lock!.release();
    tryLock(join(dir, 'lock'))!.release();
    assert.match(randomName(), /^[a-z]+_[a-z]+$/);
    assert.match(newId(), /^[0-9a-f]{64}$/);
  });

  it('keeps output by lines, in pieces where they are long, characters whole across chunks', async () => {
    const path = join(dir, 'output.log');
    const log = new OutputLog(path, { maxSizeBytes: 1 << 20, maxFiles: 2 });
    const bytes = Buffer.from(`one\nzwölf${'x'.repeat(20_000)}\nrest`);
    for (let i = 0; i < bytes.length; i += 7) {
      log.write('stdout', bytes.subarray(i, i + 7));
      // Also with nothing to write between two writes.
      if (i < 70) await new Promise((resolve) => setImmediate(resolve));
    }
    log.write('stderr', Buffer.from([0xff, 10]));
    await log.close();
    const lines: string[] = [];
    await readOutput(path, undefined, (line) => lines.push(line.log));
    assert.equal(lines.filter((line) => line === '\ufffd\n').length, 1, 'bytes that are no UTF-8 as docker shows them');
    assert.equal(lines.filter((line) => line !== '\ufffd\n').join(''), bytes.toString());
    assert.ok(Math.max(...lines.map((line) => line.length)) <= 16 * 1024);
    const last: string[] = [];
    await readOutput(path, 1, (line) => last.push(line.log));
    assert.equal(last.length, 1);
  });
});

/** Where values stand in a request, the maps on the way included. */
function* leaves(value: unknown, path: string[] = []): Generator<string[]> {
  if (path.length > 0) yield path;
  if (typeof value !== 'object' || value === null) return;
  for (const [key, inner] of Object.entries(value)) yield* leaves(inner, [...path, key]);
}
