import assert from 'node:assert/strict';
import type { FsChange } from '../../fs/mount.ts';
import { withoutMountPoints } from '../../runtime/containers.ts';

const changes = (text: string): FsChange[] =>
  text.split(' ').map((word) => ({ kind: word[0] as FsChange['kind'], path: word.slice(1) }));

describe('pg diff', () => {
  it('leaves out what was only made to mount on, and the directories that changed by that', () => {
    assert.deepEqual(withoutMountPoints(changes('C/etc A/etc/hosts A/etc/resolv.conf A/proc')), []);
    assert.deepEqual(withoutMountPoints(changes('C/etc A/etc/hosts A/etc/mine')), changes('C/etc A/etc/mine'));
    assert.deepEqual(withoutMountPoints(changes('C/var C/etc C/etc/hosts')), changes('C/var C/etc C/etc/hosts'));
  });
});
