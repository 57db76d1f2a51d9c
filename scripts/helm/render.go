// Renders a Helm chart as `helm template NAME CHART --values FILE` does: text/template with sprig and Helm's own `include`,
// `fail` and `toYaml`, values over the chart's defaults. For machines where Helm cannot be had.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"text/template"

	"github.com/Masterminds/sprig"
	"gopkg.in/yaml.v3"
)

func main() {
	if len(os.Args) != 4 {
		stop(errors.New("usage: render NAME CHART VALUES.yaml"))
	}
	text, err := render(os.Args[1], os.Args[2], os.Args[3])
	if err != nil {
		stop(err)
	}
	fmt.Print(text)
}

func stop(err error) {
	fmt.Fprintln(os.Stderr, "render:", err)
	os.Exit(1)
}

func render(name, chart, file string) (string, error) {
	values, err := read(filepath.Join(chart, "values.yaml"))
	if err != nil {
		return "", err
	}
	given, err := read(file)
	if err != nil {
		return "", err
	}
	for key := range given {
		if _, known := values[key]; !known {
			return "", fmt.Errorf("%s: the chart has no value %q", file, key)
		}
	}
	merge(values, given)

	all := template.New("chart").Option("missingkey=error")
	functions := sprig.TxtFuncMap()
	functions["include"] = func(name string, data any) (string, error) {
		var out bytes.Buffer
		err := all.ExecuteTemplate(&out, name, data)
		return out.String(), err
	}
	functions["fail"] = func(text string) (string, error) { return "", errors.New(text) }
	functions["toYaml"] = func(value any) (string, error) {
		text, err := yaml.Marshal(value)
		return strings.TrimSuffix(string(text), "\n"), err
	}
	all.Funcs(functions)

	files, err := filepath.Glob(filepath.Join(chart, "templates", "*"))
	if err != nil {
		return "", err
	}
	sort.Strings(files)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		if _, err := all.New(filepath.Base(file)).Parse(string(text)); err != nil {
			return "", err
		}
	}
	data := map[string]any{
		"Values":  values,
		"Release": map[string]any{"Name": name, "Namespace": "default", "Service": "Helm"},
	}
	var out bytes.Buffer
	for _, file := range files {
		if strings.HasPrefix(filepath.Base(file), "_") {
			continue
		}
		out.WriteString("---\n")
		if err := all.ExecuteTemplate(&out, filepath.Base(file), data); err != nil {
			return "", err
		}
	}
	return out.String(), nil
}

// As Helm does: through JSON, so that every number is a float64.
func read(file string) (map[string]any, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var plain map[string]any
	if err := yaml.Unmarshal(text, &plain); err != nil {
		return nil, err
	}
	text, err = json.Marshal(plain)
	if err != nil {
		return nil, err
	}
	values := map[string]any{}
	return values, json.Unmarshal(text, &values)
}

func merge(into, from map[string]any) {
	for key, value := range from {
		inner, isMap := value.(map[string]any)
		if old, wasMap := into[key].(map[string]any); isMap && wasMap {
			merge(old, inner)
			continue
		}
		into[key] = value
	}
}
