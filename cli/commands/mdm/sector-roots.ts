import { GROUP_HASHES } from '../../../mdm/file.ts';
import { ROOT_BYTES, SECTOR_BYTES } from '../../../mdm/merkle.ts';
import { zeroRoot } from '../../../mdm/subtrees.ts';
import { fileArg, formatFlag, MdmCommand, quietFlag } from '../../mdm/command.ts';
import { stateToJson } from '../../mdm/program.ts';
import { toHex } from '../../mdm/read-json.ts';
import { openTarget, type Target } from '../../mdm/target.ts';

export default class MdmSectorRoots extends MdmCommand {
  static override summary = 'Print the roots of the 4 MiB sectors of a file.';
  static override description = `One on a line; the last sector may be short, and its root is that of the bytes it has. The root over them, taken as
nodes, is the root of the file.`;
  static override examples = ['<%= config.bin %> mdm sector-roots disk.img'];
  static override flags = { format: formatFlag, quiet: quietFlag };
  static override args = { file: fileArg };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(MdmSectorRoots);
    const target = await openTarget(this.roots(flags), args.file, { quiet: flags.quiet });
    try {
      if (flags.format === 'json') {
        this.print({ ...stateToJson(target.file.state), sectorRoots: [...sectorRoots(target)] });
      } else for (const root of sectorRoots(target)) process.stdout.write(`${root}\n`);
    } finally {
      await target.close();
    }
  }
}

function* sectorRoots({ file }: Target): Generator<string> {
  const count = Math.ceil(file.state.size / SECTOR_BYTES);
  for (let sector = 0; sector < count; sector++) {
    const at = (sector % GROUP_HASHES) * ROOT_BYTES;
    const hashes = file.hashes(16, Math.floor(sector / GROUP_HASHES));
    yield toHex(hashes?.subarray(at, at + ROOT_BYTES) ?? zeroRoot(16));
  }
}
