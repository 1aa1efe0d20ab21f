/**
 * Builds multi-layer OCI images from Debian packages, because there is no registry to pull them from: `build.ts NAME...`.
 *
 * Layers: the Debian base (shared by all), the packages, the files of recipes.ts. `busybox` is one layer with Debian's static busybox.
 * Needs root, overlayfs and mmdebstrap. Results: `.cache/images/NAME.tar`, OCI archives (image-spec, image-layout.md), kept between calls.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { RECIPES, type Recipe } from './recipes.ts';

const HOME = join(dirname(fileURLToPath(import.meta.url)), '../..');
export const IMAGE_CACHE = process.env['PG_IMAGE_CACHE'] ?? join(HOME, '.cache/images');
const SUITE = 'bookworm';

/** A layer as the config (DiffID) and the manifest (digest, size) name it; the gzip'd blob is at `path`. */
interface Layer {
  diffId: string;
  digest: string;
  size: number;
  path: string;
}

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');
/** Runs a shell script; what it says is shown only when it fails. */
function sh(script: string): void {
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive', LC_ALL: 'C' };
  const result = spawnSync('sh', ['-ec', script], { encoding: 'utf8', env, maxBuffer: 64 << 20 });
  if (result.status !== 0)
    throw new Error(`failed (${result.status ?? result.signal}): ${script}\n${result.stdout}${result.stderr}`);
}

/** The archive of the image NAME, built if it is not in the cache. */
export function imageArchive(name: string): string {
  const recipe = RECIPES[name];
  if (recipe === undefined && name !== 'busybox')
    throw new Error(`no recipe for image '${name}' (have: busybox ${Object.keys(RECIPES).join(' ')})`);
  mkdirSync(IMAGE_CACHE, { recursive: true });
  const key = sha256(Buffer.from(JSON.stringify([recipe ?? null, SUITE, 3]))).slice(0, 12);
  const archive = join(IMAGE_CACHE, `${name}.tar`);
  const stamp = `${archive}.key`;
  if (existsSync(archive) && existsSync(stamp) && readFileSync(stamp, 'utf8') === key) return archive;
  const work = mkdtempSync('/var/tmp/pg-image-');
  try {
    process.stderr.write(`building image ${name} from Debian packages\n`);
    const layers =
      recipe === undefined ? [busyboxLayer(work)] : [baseLayer(), packageLayer(recipe, work), fileLayer(recipe, work)];
    writeArchive(archive, `${name}:latest`, layers, recipe?.config ?? { Cmd: ['sh'], Env: ['PATH=/bin'] }, work);
    writeFileSync(stamp, key);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  return archive;
}

function packLayer(tar: string, into: string): Layer {
  const raw = readFileSync(tar);
  const blob = gzipSync(raw, { level: 6 });
  writeFileSync(into, blob);
  return { diffId: `sha256:${sha256(raw)}`, digest: `sha256:${sha256(blob)}`, size: blob.length, path: into };
}

const tarTree = (tree: string, tar: string): void =>
  sh(
    `tar --numeric-owner --xattrs --xattrs-include='*' --sort=name --format=posix --pax-option=delete=atime,delete=ctime -C '${tree}' -cf '${tar}' .`,
  );

/** The unpacked Debian base; made once. */
function baseRoot(): string {
  const root = join(IMAGE_CACHE, 'base-root');
  if (existsSync(root)) return root;
  const tar = `${root}.tar`;
  // The machine's own mirror, whatever it is.
  sh(`mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m1 -E '/debian/?$')
      mmdebstrap --quiet --variant=minbase ${SUITE} '${tar}' "$mirror"`);
  mkdirSync(`${root}.new`, { recursive: true });
  sh(`tar --numeric-owner --xattrs --xattrs-include='*' -C '${root}.new' -xf '${tar}' --exclude='./dev/*'`);
  renameSync(`${root}.new`, root);
  rmSync(tar);
  return root;
}

function baseLayer(): Layer {
  const blob = join(IMAGE_CACHE, 'base-layer.tar.gz');
  const facts = `${blob}.json`;
  if (existsSync(facts)) return JSON.parse(readFileSync(facts, 'utf8')) as Layer;
  const tar = join(IMAGE_CACHE, 'base-layer.tar');
  tarTree(baseRoot(), tar);
  const layer = packLayer(tar, blob);
  rmSync(tar);
  writeFileSync(facts, JSON.stringify(layer));
  return layer;
}

/** Installs the packages in an overlay on the base and packs what changed. */
function packageLayer(recipe: Recipe, work: string): Layer {
  const [upper, overlayWork, root] = ['upper', 'overlay-work', 'root'].map((d) => join(work, d)) as [
    string,
    string,
    string,
  ];
  for (const dir of [upper, overlayWork, root]) mkdirSync(dir);
  sh(`mount -t overlay overlay -o 'lowerdir=${baseRoot()},upperdir=${upper},workdir=${overlayWork}' '${root}'`);
  try {
    sh(`printf '#!/bin/sh\\nexit 101\\n' > '${root}/usr/sbin/policy-rc.d'; chmod 755 '${root}/usr/sbin/policy-rc.d'
        [ ! -f /etc/resolv.conf ] || cp /etc/resolv.conf '${root}/etc/resolv.conf'
        mount --bind /dev '${root}/dev'; mount -t proc proc '${root}/proc'`);
    try {
      if (recipe.upgraded === true) {
        sh(`mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m1 -E '/debian-security/?$')
            echo "deb $mirror ${SUITE}-security main" >'${root}/etc/apt/sources.list.d/security.list'
            chroot '${root}' apt-get -qq update; chroot '${root}' apt-get -qq dist-upgrade -y >/dev/null`);
      }
      sh(`chroot '${root}' apt-get -qq update; chroot '${root}' apt-get -qq install -y --no-install-recommends ${recipe.packages.join(' ')} >/dev/null
          chroot '${root}' sh -c ${JSON.stringify(recipe.setup ?? 'true')}
          chroot '${root}' apt-get clean; rm -rf '${root}'/var/lib/apt/lists/* '${root}'/var/cache/apt/* '${root}'/usr/sbin/policy-rc.d '${root}'/var/log/apt/* '${root}'/var/log/dpkg.log`);
    } finally {
      sh(`umount '${root}/proc'; umount '${root}/dev'`);
    }
  } finally {
    sh(`umount '${root}'`);
  }
  overlayToOci(upper);
  const tar = join(work, 'packages.tar');
  tarTree(upper, tar);
  return packLayer(tar, join(work, 'packages.tar.gz'));
}

/** Overlayfs marks a deleted name by a 0:0 device; a layer marks it by an empty file `.wh.NAME` (image-spec, layer.md). */
function overlayToOci(upper: string): void {
  for (const entry of readdirSync(upper, { withFileTypes: true, recursive: true })) {
    const path = join(entry.parentPath, entry.name);
    if (entry.isCharacterDevice() && lstatSync(path).rdev === 0) {
      rmSync(path);
      writeFileSync(join(entry.parentPath, `.wh.${entry.name}`), '');
    }
  }
}

function fileLayer(recipe: Recipe, work: string): Layer {
  const tree = join(work, 'files');
  for (const [path, file] of Object.entries(recipe.files)) {
    const to = join(tree, path);
    mkdirSync(dirname(to), { recursive: true });
    writeFileSync(to, file.text);
    chmodSync(to, file.mode ?? 0o644);
  }
  const tar = join(work, 'files.tar');
  // Only the files: the directories that exist below keep their owner and mode.
  const names = Object.keys(recipe.files).map((path) => `.${path}`);
  execFileSync('tar', [
    '--numeric-owner',
    '--owner=0',
    '--group=0',
    '--mtime=@1700000000',
    '-C',
    tree,
    '-cf',
    tar,
    ...names,
  ]);
  return packLayer(tar, join(work, 'files.tar.gz'));
}

function busyboxLayer(work: string): Layer {
  const tree = join(work, 'busybox');
  for (const dir of ['bin', 'etc', 'tmp', 'root', 'home', 'var', 'proc', 'sys', 'dev'])
    mkdirSync(join(tree, dir), { recursive: true });
  chmodSync(join(tree, 'tmp'), 0o1777);
  copyFileSync('/bin/busybox', join(tree, 'bin/busybox'));
  const applets = execFileSync('/bin/busybox', ['--list'], { encoding: 'utf8' }).trim().split('\n');
  for (const applet of applets) if (applet !== 'busybox') symlinkSync('busybox', join(tree, 'bin', applet));
  writeFileSync(join(tree, 'etc/passwd'), 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n');
  writeFileSync(join(tree, 'etc/group'), 'root:x:0:\nnogroup:x:65534:\n');
  const tar = join(work, 'busybox.tar');
  sh(`tar --numeric-owner --owner=0 --group=0 --mtime=@1700000000 --sort=name -C '${tree}' -cf '${tar}' .`);
  return packLayer(tar, join(work, 'busybox.tar.gz'));
}

function writeArchive(archive: string, ref: string, layers: Layer[], config: Recipe['config'], work: string): void {
  const layout = join(work, 'layout');
  mkdirSync(join(layout, 'blobs/sha256'), { recursive: true });
  const put = (bytes: Uint8Array, mediaType: string): { mediaType: string; digest: string; size: number } => {
    writeFileSync(join(layout, 'blobs/sha256', sha256(bytes)), bytes);
    return { mediaType, digest: `sha256:${sha256(bytes)}`, size: bytes.length };
  };
  for (const layer of layers)
    copyFileSync(layer.path, join(layout, 'blobs/sha256', layer.digest.slice('sha256:'.length)));
  const architecture = process.arch === 'x64' ? 'amd64' : process.arch;
  const configBytes = Buffer.from(
    JSON.stringify({
      created: '2024-01-01T00:00:00Z',
      architecture,
      os: 'linux',
      config,
      rootfs: { type: 'layers', diff_ids: layers.map((l) => l.diffId) },
    }),
  );
  const manifest = {
    schemaVersion: 2,
    mediaType: 'application/vnd.oci.image.manifest.v1+json',
    config: put(configBytes, 'application/vnd.oci.image.config.v1+json'),
    layers: layers.map((l) => ({
      mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip',
      digest: l.digest,
      size: l.size,
    })),
  };
  const descriptor = {
    ...put(Buffer.from(JSON.stringify(manifest)), manifest.mediaType),
    annotations: { 'org.opencontainers.image.ref.name': ref },
  };
  writeFileSync(join(layout, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests: [descriptor] }));
  writeFileSync(join(layout, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
  execFileSync('tar', ['-C', layout, '-cf', `${archive}.new`, 'oci-layout', 'index.json', 'blobs']);
  renameSync(`${archive}.new`, archive);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  for (const name of process.argv.slice(2)) {
    const archive = imageArchive(name);
    process.stdout.write(`${relative(process.cwd(), archive)} ${statSync(archive).size}\n`);
  }
}
