/** Layers that are hard to lay over one another, what comes of them, and whether docker load (20.10, overlay2) makes the same of them. */
import type { RawEntry } from './tar-builder.ts';

export interface Case {
  /** Each layer's entries, lowest first. */
  layers: RawEntry[][];
  /** Every name: `path=content`, `path->target`, `path/`, `path` for anything else. Or the code of the error. */
  tree: string[] | { error: string };
  /** Why docker makes something else of it; without: it makes the same, or refuses what we refuse. */
  docker?: string;
}

const file = (name: string, data = name, more: Partial<RawEntry> = {}): RawEntry => ({ name, data, ...more });
const symlink = (name: string, linkName: string): RawEntry => ({ name, type: '2', linkName });
const hardlink = (name: string, linkName: string, more: Partial<RawEntry> = {}): RawEntry => ({
  name,
  type: '1',
  linkName,
  ...more,
});
const dir = (name: string, more: Partial<RawEntry> = {}): RawEntry => ({ name, ...more });
const whiteout = (name: string): RawEntry => file(name, '');

const NAMES: Record<string, Case> = {
  'a name that leaves the root': {
    layers: [[file('../evil')]],
    tree: { error: 'HOSTILE_PATH' },
    docker: 'puts it at /evil',
  },
  'a name that leaves the root on a detour': {
    layers: [[file('a/../../b')]],
    tree: { error: 'HOSTILE_PATH' },
    docker: 'puts it at /b',
  },
  '.. inside of the root': { layers: [[file('a/../b')]], tree: ['b=a/../b'] },
  '.. above an absolute name': { layers: [[file('/../b')]], tree: ['b=/../b'] },
  'absolute names and dots': {
    layers: [[file('/abs/x'), file('./dot/y'), file('.//z')]],
    tree: ['abs/', 'abs/x=/abs/x', 'dot/', 'dot/y=./dot/y', 'z=.//z'],
  },
  'the root itself': { layers: [[dir('./', { mode: 0o700, uid: 9 }), file('a')]], tree: ['a=a'] },
  'a file that claims to be the root': { layers: [[file('.'), file('a')]], tree: ['a=a'] },
  'a NUL in a name': { layers: [[file('a', 'x', { pax: [['path', 'a\0b']] })]], tree: { error: 'TAR_BAD_PATH' } },
  'a component of 256 bytes': {
    layers: [[file('n', 'x', { longName: 'n'.repeat(256) })]],
    tree: { error: 'TAR_BAD_PATH' },
  },
  'a path longer than PATH_MAX': {
    layers: [[file('x', 'y', { longName: `${'d/'.repeat(2500)}x` })]],
    tree: { error: 'TAR_BAD_PATH' },
  },
  'names of 255 bytes that are not UTF-8': {
    layers: [
      [
        file('n', 'x', { longName: `d/${'\xff'.repeat(255)}` }),
        file('m', 'y', { pax: [['path', `\xe9${'z'.repeat(150)}`]] }),
      ],
    ],
    tree: ['d/', `d/${'\xff'.repeat(255)}=x`, `\xe9${'z'.repeat(150)}=y`],
  },
};

const LINKS: Record<string, Case> = {
  'a hard link out of the root': {
    layers: [[file('a'), hardlink('b', '../../etc/passwd')]],
    tree: { error: 'HOSTILE_PATH' },
  },
  'a hard link above an absolute name': { layers: [[file('a'), hardlink('b', '/../a')]], tree: ['a=a', 'b=a'] },
  'a hard link to nothing': { layers: [[hardlink('b', 'nope')]], tree: { error: 'HARDLINK_TARGET' } },
  'a hard link to a directory': { layers: [[dir('d/'), hardlink('b', 'd')]], tree: { error: 'HARDLINK_TARGET' } },
  'a hard link to itself': { layers: [[file('a'), hardlink('a', 'a')]], tree: ['a=a'], docker: 'refuses it' },
  'a hard link to the layer below': {
    layers: [[file('a')], [hardlink('b', 'a')]],
    tree: ['a=a', 'b=a'],
    docker: 'refuses it; containerd and umoci do not',
  },
  'a hard link with attributes of its own': {
    layers: [[file('a', 'x', { mtime: 5 }), hardlink('b', 'a', { mode: 0o600, uid: 7, mtime: 9 })]],
    tree: ['a=x', 'b=x'],
  },
  'a hard link to a symlink': {
    layers: [[file('a'), symlink('s', 'a'), hardlink('b', 's')]],
    tree: ['a=a', 'b->a', 's->a'],
  },
  'a hard link that replaces a directory': {
    layers: [[file('a'), dir('d/'), file('d/x'), hardlink('d', 'a')]],
    tree: ['a=a', 'd=a'],
    docker: 'refuses names that come twice in a layer',
  },
  'links that claim to have data': {
    layers: [[file('a'), { ...hardlink('b', 'a'), size: 5 }, { ...symlink('s', 'x'), size: 5 }, file('c')]],
    tree: ['a=a', 'b=a', 'c=c', 's->x'],
  },
  'a symlink to nothing at all': { layers: [[symlink('s', '')]], tree: { error: 'TAR_BAD_PATH' } },
  'through a symlink of this layer': {
    layers: [[dir('usr/'), symlink('lib', 'usr'), file('lib/x', '1'), symlink('abs', '/usr'), file('abs/y', '2')]],
    tree: ['abs->/usr', 'lib->usr', 'usr/', 'usr/x=1', 'usr/y=2'],
  },
  'through a symlink that points out': {
    layers: [[dir('e/'), symlink('lib', '../../../../e'), file('lib/x', '1')]],
    tree: ['e/', 'e/x=1', 'lib->../../../../e'],
  },
  'through a symlink to nothing': {
    layers: [[symlink('lib', 'usr'), file('lib/x', '1')]],
    tree: ['lib->usr', 'usr/', 'usr/x=1'],
    docker: 'refuses it',
  },
  'through symlinks in a circle': {
    layers: [[symlink('a', 'b'), symlink('b', 'a'), file('a/x')]],
    tree: { error: 'TAR_BAD_PATH' },
  },
  'through a symlink of the layer below': {
    layers: [[dir('usr/'), file('usr/old', '0'), symlink('lib', 'usr')], [file('lib/x', '1')]],
    tree: ['lib/', 'lib/x=1', 'usr/', 'usr/old=0'],
  },
  'through symlinks in the middle of a path': {
    layers: [[dir('usr/'), dir('usr/a/'), symlink('lib', 'usr'), file('lib/a/x', '1'), file('lib/new/y', '2')]],
    tree: ['lib->usr', 'usr/', 'usr/a/', 'usr/a/x=1', 'usr/new/', 'usr/new/y=2'],
  },
  'through a file of this layer': { layers: [[file('a'), file('a/b')]], tree: { error: 'TAR_BAD_PATH' } },
  'through a file of the layer below': { layers: [[file('a')], [file('a/b', '1')]], tree: ['a/', 'a/b=1'] },
};

const REPLACED: Record<string, Case> = {
  'the same name twice': {
    layers: [[file('a', '1'), file('a', '2')]],
    tree: ['a=2'],
    docker: 'refuses names that come twice in a layer',
  },
  'a directory, then a file': {
    layers: [[dir('a/'), file('a/x'), file('a', 'f')]],
    tree: ['a=f'],
    docker: 'refuses names that come twice in a layer',
  },
  'a file, then a directory': {
    layers: [[file('a', 'f'), dir('a/'), file('a/x', '1')]],
    tree: ['a/', 'a/x=1'],
    docker: 'refuses names that come twice in a layer',
  },
  'a directory over a file': { layers: [[file('a')], [dir('a/')]], tree: ['a/'] },
  'a file over a directory': { layers: [[dir('a/'), file('a/x')], [file('a', 'f')]], tree: ['a=f'] },
  'a symlink over a directory': {
    layers: [[dir('a/'), file('a/x'), dir('b/'), file('b/y', '1')], [symlink('a', 'b')]],
    tree: ['a->b', 'b/', 'b/y=1'],
  },
  'a directory over a symlink': {
    layers: [
      [dir('usr/'), file('usr/old', '0'), symlink('lib', 'usr')],
      [dir('lib/'), file('lib/x', '1')],
    ],
    tree: ['lib/', 'lib/x=1', 'usr/', 'usr/old=0'],
  },
  'a directory over a directory': {
    layers: [[dir('a/', { mode: 0o700 }), file('a/x', '1')], [dir('a/', { mode: 0o711, uid: 3 })]],
    tree: ['a/', 'a/x=1'],
  },
  'a directory that is only implied': {
    layers: [[dir('a/', { mode: 0o700, uid: 5 })], [file('a/x', '1')]],
    tree: ['a/', 'a/x=1'],
    docker: 'gives it mode 0755 and root; containerd and umoci leave it as it was',
  },
};

const WHITEOUTS: Record<string, Case> = {
  whiteouts: {
    layers: [
      [file('a'), dir('d/'), file('d/x'), file('d/y', '1')],
      [whiteout('.wh.a'), dir('d/'), whiteout('d/.wh.x')],
    ],
    tree: ['d/', 'd/y=1'],
  },
  'whiteouts of nothing': {
    layers: [[file('a')], [whiteout('.wh.b'), whiteout('q/.wh.c')]],
    tree: ['a=a', 'q/'],
    docker: 'shows the whiteout itself, in a directory that only the upper layer has',
  },
  'a whiteout, then the same name': { layers: [[file('a', '0')], [whiteout('.wh.a'), file('a', '1')]], tree: ['a=1'] },
  'a name, then its whiteout': {
    layers: [[file('a', '0')], [file('a', '1'), whiteout('.wh.a')]],
    tree: ['a=1'],
    docker: 'refuses it',
  },
  'a whiteout, then a directory of that name': {
    layers: [
      [dir('d/'), file('d/old')],
      [whiteout('.wh.d'), dir('d/'), file('d/new', '1')],
    ],
    tree: ['d/', 'd/new=1'],
    docker: 'brings back what was in the old one',
  },
  'an opaque directory': {
    layers: [
      [dir('d/'), file('d/old'), dir('d/s/'), file('d/s/q')],
      [dir('d/'), whiteout('d/.wh..wh..opq'), file('d/new', '1')],
    ],
    tree: ['d/', 'd/new=1'],
  },
  'an opaque marker after the entries': {
    layers: [
      [dir('d/'), file('d/old')],
      [dir('d/'), file('d/new', '1'), whiteout('d/.wh..wh..opq')],
    ],
    tree: ['d/', 'd/new=1'],
  },
  'an opaque marker over a file': { layers: [[file('d')], [whiteout('d/.wh..wh..opq')]], tree: ['d/'] },
  'an opaque root': {
    layers: [
      [file('a'), file('b')],
      [whiteout('.wh..wh..opq'), file('c')],
    ],
    tree: ['c=c'],
    docker: 'overlayfs ignores it there',
  },
  'files that aufs kept for itself': {
    layers: [[file('.wh..wh.plnk/1'), file('.wh..wh.aufs'), file('a')]],
    tree: ['.wh..wh.plnk/', '.wh..wh.plnk/1=.wh..wh.plnk/1', 'a=a'],
  },
  'a whiteout of its own directory': { layers: [[file('d/x')], [whiteout('d/.wh.')]], tree: { error: 'HOSTILE_PATH' } },
  'a whiteout of the directory above': {
    layers: [[file('d/x'), file('y')], [whiteout('d/.wh...')]],
    tree: { error: 'HOSTILE_PATH' },
  },
};

const KINDS: Record<string, Case> = {
  'devices and a FIFO': {
    layers: [
      [
        { name: 'c', type: '3', device: [1, 3], mode: 0o666 },
        { name: 'b', type: '4', device: [259, 70_000] },
        { name: 'p', type: '6' },
      ],
    ],
    tree: ['b', 'c', 'p'],
  },
  'the device that overlayfs takes for a whiteout': {
    layers: [[file('a')], [{ name: 'a', type: '3', device: [0, 0] }]],
    tree: ['a'],
    docker: 'hides the name',
  },
  'a device number out of range': {
    layers: [[{ name: 'c', type: '3', device: [4096, 0] }]],
    tree: { error: 'TAR_BAD_HEADER' },
    docker: 'cuts it off',
  },
  'set-id and sticky bits': {
    layers: [[file('s', 'x', { mode: 0o6755 }), dir('t/', { mode: 0o1777 })]],
    tree: ['s=x', 't/'],
  },
  'extended attributes': {
    layers: [[file('a', 'x', { pax: [['SCHILY.xattr.user.k', 'v\x00\xff']] })]],
    tree: ['a=x'],
  },
  nanoseconds: { layers: [[file('a', 'x', { pax: [['mtime', '1600000000.123456789']] })]], tree: ['a=x'] },
  'before 1970': {
    layers: [[file('a', 'x', { pax: [['mtime', '-1.5']] })]],
    tree: ['a=x'],
    docker: 'makes it 1970',
  },
  'global headers': { layers: [[{ name: 'g', type: 'g', data: '15 mtime=100.5\n' }, file('a')]], tree: ['a=a'] },
  'old types': {
    layers: [[file('a', 'x', { type: '\0', magic: 'v7' }), { name: 'd/', type: '\0', magic: 'v7' }]],
    tree: ['a=x', 'd/'],
  },
  'a contiguous file': { layers: [[file('a', 'x', { type: '7' })]], tree: ['a=x'], docker: 'refuses it' },
  'a file whose name ends in a slash': { layers: [[{ name: 'a/', type: '0', data: 'x' }]], tree: ['a=x'] },
  'a volume label': { layers: [[file('a', '', { type: 'V' })]], tree: { error: 'TAR_UNSUPPORTED' } },
};

export const CASES: Record<string, Case> = { ...NAMES, ...LINKS, ...REPLACED, ...WHITEOUTS, ...KINDS };
