// Compiles the Kaitai Struct grammars of format-spec/grammars to Python.
// usage: NODE_PATH=.tools/spec/node_modules node compile.cjs GRAMMARS OUT
'use strict';
const fs = require('node:fs');
const path = require('node:path');
const yaml = require('js-yaml');
const compiler = require('kaitai-struct-compiler');

const [grammars, out] = process.argv.slice(2);
const load = (name) => yaml.load(fs.readFileSync(path.join(grammars, `${name}.ksy`), 'utf8'), { schema: yaml.CORE_SCHEMA });
const importer = { importYaml: async (name) => load(name) };

(async () => {
  for (const name of ['tlf_number', 'tlf_segment', 'tlf_record']) {
    const files = await compiler.compile('python', load(name), importer, false);
    for (const [file, text] of Object.entries(files)) fs.writeFileSync(path.join(out, file), text);
  }
})().catch((error) => {
  console.error(error.message ?? error);
  process.exit(1);
});
