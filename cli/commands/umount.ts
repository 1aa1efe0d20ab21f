import { Args } from '@oclif/core';
import { stopDetachedMount } from '../../fs/detached.ts';
import { PgCommand } from '../base.ts';

export default class Umount extends PgCommand {
  static override summary = 'Unmount what pg mount mounted, once everything written is committed.';
  static override examples = ['<%= config.bin %> umount /mnt'];
  static override args = { dir: Args.string({ description: 'where it is mounted', required: true }) };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(Umount);
    this.needRoot('pg umount');
    await stopDetachedMount(this.roots(flags), args.dir);
  }
}
