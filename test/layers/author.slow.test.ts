/** Images made of root filesystems, beside what docker import makes of the same. */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, linkSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { authorImage } from '../../layers/author.ts';
import { findImage, type ImageRecord } from '../../layers/images.ts';
import { parseRootSource } from '../../layers/root-tar.ts';
import { openTree } from '../../layers/tree.ts';
import { openStore } from '../../store/store.ts';
import { noise, Place } from '../store/fixture.ts';
import { diskListing, treeListing } from './listing.ts';
import { failure } from './transport/checks.ts';
import { type Dockerd, havePrograms, run, startDockerd } from './transport/services.ts';

const HOME = join(dirname(fileURLToPath(import.meta.url)), '../..');
const PG = process.env['PG_TEST_BIN'] ?? join(HOME, 'bin/pg');

describe('an image of a root filesystem', function () {
  this.timeout(60_000);
  let dir: string;
  let place: Place;
  let docker: Dockerd | undefined;

  const pg = (input: Buffer | undefined, ...args: string[]): { code: number | null; out: string; err: string } => {
    const env = { ...process.env, PG_ROOT: join(dir, 'pg') };
    const { status, stdout, stderr } = spawnSync(PG, args, { env, ...(input === undefined ? {} : { input }) });
    return { code: status, out: stdout.toString(), err: stderr.toString() };
  };
  const imageCalled = async (name: string): Promise<ImageRecord> => {
    const store = openStore({ data: join(dir, 'pg'), run: join(dir, 'pg/run'), config: join(dir, 'pg/etc') });
    try {
      return findImage(store, name)!;
    } finally {
      await store.close();
    }
  };

  before(async function () {
    if (process.getuid?.() !== 0 || !havePrograms('dockerd', 'docker', 'setfattr')) return this.skip();
    if (!existsSync(join(HOME, 'dist/cli/main.js')) && process.env['PG_TEST_BIN'] === undefined) return this.skip();
    dir = mkdtempSync('/var/tmp/pg-test-');
    place = new Place();
    const root = join(dir, 'root');
    mkdirSync(join(root, 'etc'), { recursive: true });
    writeFileSync(join(root, 'etc/motd'), 'hello\n');
    writeFileSync(join(root, 'big'), noise(3_000_000, 1), { mode: 0o4755 });
    linkSync(join(root, 'big'), join(root, 'twin'));
    symlinkSync('/etc/motd', join(root, 'link'));
    run('mknod', join(root, 'null'), 'c', '1', '3');
    run('mkfifo', join(root, 'pipe'));
    run('truncate', '-s', '5M', join(root, 'sparse'));
    run('chown', '5:6', join(root, 'etc/motd'));
    run('setfattr', '-n', 'user.pg', '-v', 'value', join(root, 'etc/motd'));
    writeFileSync(join(root, `etc/${'é'.repeat(120)}`), 'long');
    run('tar', '-C', root, '--xattrs', '-cf', join(dir, 'root.tar'), '.');
    run('gzip', '-k', join(dir, 'root.tar'));
    docker = await startDockerd();
  });
  after(async () => {
    await docker?.stop();
    await place?.remove();
    if (dir) rmSync(dir, { recursive: true, force: true });
  });

  it('of a directory has its files, and is the same again', async () => {
    const store = place.open();
    const source = parseRootSource(`rootfs:${dir}/root`)!;
    const image = await authorImage(store, source, { name: 'mine', changes: [] });
    assert.deepEqual(
      treeListing(store, openTree(store, image.treeRoot), { xattrs: true }),
      diskListing(join(dir, 'root'), { xattrs: true }),
    );
    const again = await authorImage(store, source, { changes: [] });
    assert.deepEqual(again.layers, image.layers);
    assert.deepEqual(again.treeRoot, image.treeRoot);
  });

  it('has the layer and the config that docker import gives it', async () => {
    const changes = [
      ['-c', 'CMD ["/bin/sh", "-l"]'],
      ['-c', 'ENV A=b "C D=e"'],
      ['-c', 'EXPOSE 80 53/udp'],
      ['-c', 'LABEL x="y z"'],
      ['-c', 'USER 5:6'],
      ['-c', 'VOLUME /data'],
      ['-c', 'WORKDIR /etc'],
      ['-c', 'ENTRYPOINT /init now'],
    ].flat();
    changes.splice(changes.indexOf('ENV A=b "C D=e"'), 1, 'ENV A=b');
    const theirs = run('docker', '-H', docker!.host, 'import', ...changes, join(dir, 'root.tar'), 'theirs:1').trim();
    const [seen] = JSON.parse(run('docker', '-H', docker!.host, 'inspect', theirs)) as [
      { RootFS: { Layers: string[] }; Config: Record<string, unknown> },
    ];
    for (const source of [`tar:${dir}/root.tar`, `tar:${dir}/root.tar.gz`]) {
      const made = pg(undefined, 'import', source, 'ours:1', ...changes, '-m', 'by hand');
      assert.equal(made.code, 0, made.err);
      const { config, layers, id } = await imageCalled('ours:1');
      assert.equal(made.out, `${id}\n`);
      assert.deepEqual(
        layers.map(({ diffId }) => diffId),
        seen.RootFS.Layers,
      );
      const wanted = Object.fromEntries(Object.entries(seen.Config).filter(([key]) => key in config.config!));
      assert.deepEqual(config.config, wanted);
      assert.equal(Object.keys(wanted).length, 8);
      assert.equal(config.history?.[0]?.comment, 'by hand');
    }
  });

  it('comes on stdin and from a URL, under flags of its own', async () => {
    const tar = execFileSync('cat', [join(dir, 'root.tar.gz')], { maxBuffer: 64 << 20 });
    const flags = [
      '--cmd',
      '["sh"]',
      '--entrypoint',
      '["/init"]',
      '--env',
      'A=b c"d',
      '--label',
      'k=v',
      '--user',
      'me',
    ];
    const more = ['--workdir', '/w', '--expose', '80', '--volume', '/a b', '--stop-signal', 'SIGINT'];
    const made = pg(tar, 'import', '-', 'stdin', ...flags, ...more);
    assert.equal(made.code, 0, made.err);
    const { config, layers } = await imageCalled('stdin');
    assert.deepEqual(config.config, {
      Cmd: ['sh'],
      Entrypoint: ['/init'],
      Env: ['A=b c"d'],
      Labels: { k: 'v' },
      User: 'me',
      WorkingDir: '/w',
      ExposedPorts: { '80/tcp': {} },
      Volumes: { '/a b': {} },
      StopSignal: 'SIGINT',
    });
    const edited = pg(undefined, 'import', 'stdin', 'edited', '--cmd', 'echo hi');
    assert.equal(edited.code, 0, edited.err);
    const other = await imageCalled('edited');
    assert.deepEqual(other.config.config?.Cmd, ['/bin/sh', '-c', 'echo hi']);
    assert.deepEqual(other.config.config?.Entrypoint, ['/init']);
    assert.deepEqual(other.layers, layers);
    assert.notEqual(other.id, (await imageCalled('stdin')).id);

    const store = place.open();
    const server = createServer((request, response) => {
      if (request.url === '/moved') return void response.writeHead(302, { location: '/root.tar.gz' }).end();
      response.writeHead(request.url === '/root.tar.gz' ? 200 : 404).end(tar);
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const at = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const image = await authorImage(store, parseRootSource(`${at}/moved`)!, { changes: [] });
    assert.deepEqual(image.layers, layers);
    await failure(() => authorImage(store, parseRootSource(`${at}/none`)!, { changes: [] }), 'URL_UNREADABLE');
    server.close();
  });

  it('is not made of what cannot be read, nor with flags that say nothing', () => {
    for (const [args, words] of [
      [['rootfs:/no/such', 'x'], /cannot read \/no\/such/],
      [[`rootfs:${dir}/root.tar`, 'x'], /did you mean tar:/],
      [[`tar:${dir}/root`, 'x'], /did you mean rootfs:/],
      [[`rootfs:${dir}/root`, 'Not/Good'], /lower case/],
      [[`rootfs:${dir}/root`, 'x', '-c', 'FROM y'], /FROM changes no image/],
      [[`rootfs:${dir}/root`, 'x', '--env', 'novalue'], /NAME=VALUE/],
      [[`rootfs:${dir}/root`, 'x', '--all-platforms'], /says nothing about a root filesystem/],
      [['edited', '--cmd', 'x'], /needs a name of its own/],
    ] as const) {
      const { code, err, out } = pg(undefined, 'import', ...args);
      assert.deepEqual([code, out], [125, ''], err);
      assert.match(err, words);
      assert.doesNotMatch(err, /\n\s+at /);
    }
    const garbage = pg(Buffer.from('no tar at all'.repeat(100)), 'import', '-', 'x');
    assert.equal(garbage.code, 125);
    assert.match(garbage.err, /tar/);
    const plain = pg(undefined, 'import', `dir:${dir}/root`, 'plain');
    assert.equal(plain.code, 0, plain.err);
    assert.match(plain.err, /made of the files in/);
  });
});
