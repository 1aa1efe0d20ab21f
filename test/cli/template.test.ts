import assert from 'node:assert/strict';
import { renderTemplate } from '../../cli/template.ts';
import { isPgError } from '../../mdm/error.ts';

const DATA = {
  Name: 'web',
  State: { Running: true, Pid: 7 },
  Ports: [{ Host: 80 }, { Host: 443 }],
  Labels: { a: '1', b: '2' },
  Empty: [],
};

/** What Docker prints for the same template and data. */
const CASES: [template: string, shown: string][] = [
  ['{{.Name}}', 'web'],
  ['{{ .State.Pid }}/{{.State.Running}}', '7/true'],
  ['{{json .State}}', '{"Running":true,"Pid":7}'],
  ['{{.State | json}}', '{"Running":true,"Pid":7}'],
  ['{{range .Ports}}{{.Host}} {{end}}', '80 443 '],
  ['{{range .Empty}}x{{else}}none{{end}}', 'none'],
  ['{{if .State.Running}}up{{else}}down{{end}}', 'up'],
  ['{{with .State}}{{.Pid}}{{end}}', '7'],
  ['{{index .Labels "b"}}', '2'],
  ['{{index .Ports 1 | json}}', '{"Host":443}'],
  ['{{len .Ports}} {{upper .Name}}', '2 WEB'],
  ['{{if eq .Name "web" "db"}}yes{{end}}', 'yes'],
  ['{{if not .Empty}}empty{{end}}', 'empty'],
  ['{{range .Ports}}{{$.Name}}:{{.Host}} {{end}}', 'web:80 web:443 '],
  ['{{if .Missing}}yes{{else}}no{{end}}', 'no'],
  ['{{printf "%-5s|%3d|%q|%.2s|%%" .Name 7 .Name .Name}}', 'web  |  7|"web"|we|%'],
  ['{{index .Labels "none"}}', ''],
  ['a {{- .Name -}} b', 'awebb'],
  ['{{join (split "a,b" ",") "+"}}', 'a+b'],
  ['{{.Name}}\\t{{.State.Pid}}', 'web\t7'],
  ['{{.Labels}}', 'map[a:1 b:2]'],
];

describe('Go templates', () => {
  for (const [template, shown] of CASES) {
    it(template, () => assert.equal(renderTemplate(template, DATA), shown));
  }

  for (const template of [
    '{{.Name',
    '{{range .Ports}}',
    '{{end}}',
    '{{nosuch .Name}}',
    '{{}}',
    '{{.Name | }}',
    '{{.Missing}}',
  ]) {
    it(`refuses ${template}`, () => {
      assert.throws(
        () => renderTemplate(template, DATA),
        (error) => isPgError(error, 'BAD_TEMPLATE'),
      );
    });
  }
});
