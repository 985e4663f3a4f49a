package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strings"
)

// placeholder is a name that scenes are asked with, and the expression of the
// chart that takes its place.
type placeholder struct{ stands, for_ string }

// Longer names first: some begin with others.
var placeholders = []placeholder{
	{"qd-lease-namespace", "{{ .Values.lease.namespace }}"},
	{"qd-lease-name", "{{ .Values.lease.name }}"},
	{"qd-addons-namespace", "{{ $on.addonNamespace }}"},
	{"qd-addons-name", "{{ $on.addonName }}"},
	{"qd-user", `{{ include "quarterdeck.user" . }}`},
}

// Flags by which each kind of controller gets what it needs.
var (
	withCloud  = []string{"--cloud-provider=sim"}
	withRoutes = append([]string{"--cluster-cidr=10.244.0.0/16"}, withCloud...)
	withMetal  = []string{"--cloud-provider=metal", "--cloud-config=/inventory.yaml", "--cluster-cidr=10.244.0.0/16"}
)

// addonAccounts are the ways in which a value names whose account addons act
// as; one of them holds.
var addonAccounts = []string{
	`(eq $on.addonAccount "own")`,
	`(eq $on.addonAccount "system")`,
	`(eq $on.addonAccount "elsewhere")`,
}

// controller is one line of the program's table.
type controller struct {
	name string
	// needs is what it stands aside without: "", "cloud", "routes" or "metal".
	needs string
	// writesAnything: it applies whatever it is handed, under an account that
	// a value may name.
	writesAnything bool
}

// table is what the program has.
type table []controller

// leaseNamespace is the flag that scenes are asked with unless they name another value.
const leaseNamespace = "--leader-elect-resource-namespace"

// scene is one way to ask, and when its answer holds.
type scene struct {
	// atoms all have to hold; none: always.
	atoms []string
	// flags of the program.
	flags []string
	// only names the manifest that counts, if not all do.
	only string
}

// learn asks the program for its controllers and what each stands aside without.
func learn(program string) (table, error) {
	help, err := exec.Command(program, "--help").Output()
	if err != nil {
		return nil, fmt.Errorf("%s --help: %w", program, err)
	}
	var all table
	for _, line := range strings.Split(string(help), "\n") {
		names, found := strings.CutPrefix(strings.TrimSpace(line), "All controllers: ")
		if !found {
			continue
		}
		for _, name := range strings.Split(names, ",") {
			one, err := learnOne(program, strings.TrimSpace(name))
			if err != nil {
				return nil, err
			}
			all = append(all, one)
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s --help names no controllers", program)
	}
	return all, nil
}

func learnOne(program, name string) (controller, error) {
	ways := []struct {
		needs string
		flags []string
	}{{"", nil}, {"cloud", withCloud}, {"routes", withRoutes}, {"metal", withMetal}}
	var err error
	for _, way := range ways {
		var files map[string][]byte
		files, err = install(program, append([]string{"--controllers=" + name}, way.flags...))
		if err == nil {
			_, writes := files["addons-cluster-admin"]
			return controller{name: name, needs: way.needs, writesAnything: writes}, nil
		}
	}
	return controller{}, err
}

// scenes are all ways in which values change the answer.
func (all table) scenes() []scene {
	none := "--controllers="
	scenes := []scene{
		{flags: []string{none}},
		// The fence is called after its Lease, and that is not the same everywhere.
		{[]string{`(eq .Values.lease.namespace "kube-system")`}, []string{none, leaseNamespace + "=kube-system"}, "fence"},
		{[]string{`(ne .Values.lease.namespace "kube-system")`}, []string{none}, "fence"},
	}
	for _, one := range all {
		on := fmt.Sprintf("(index $on %q)", one.name)
		just := "--controllers=" + one.name
		switch {
		case one.writesAnything:
			own, system, elsewhere := addonAccounts[0], addonAccounts[1], addonAccounts[2]
			scenes = append(scenes,
				scene{[]string{on, own}, []string{just, "--addons-cluster-admin=false"}, ""},
				scene{[]string{on, own, "$on.addonAdmin"}, []string{just}, "addons-cluster-admin"},
				scene{[]string{on, system}, []string{just, "--addon-service-account=qd-addons-name"}, ""},
				scene{[]string{on, elsewhere},
					[]string{just, "--addon-service-account=qd-addons-namespace/qd-addons-name"}, ""})
		case one.needs == "":
			scenes = append(scenes, scene{[]string{on}, []string{just}, ""})
		default:
			if one.needs != "metal" {
				scenes = append(scenes, scene{[]string{on}, append([]string{just}, withRoutes...), ""})
			}
			scenes = append(scenes, scene{[]string{on, "$on.metal"}, append([]string{just}, withMetal...), ""})
		}
	}
	return scenes
}

// template is the table for the chart's own helpers.
func (all table) template() string {
	var lines []string
	for _, one := range all {
		lines = append(lines, fmt.Sprintf("%q: %q", one.name, one.needs))
	}
	sort.Strings(lines)
	return "{{- /* The controllers, and what each stands aside without. */ -}}\n{{- define \"quarterdeck.table\" -}}\n{" +
		strings.Join(lines, ",\n ") + "}\n{{- end -}}\n"
}

// install returns the manifests that the program writes with these flags, by name.
func install(program string, flags []string) (map[string][]byte, error) {
	folder, err := os.MkdirTemp("", "chart")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(folder)
	args := append([]string{
		"install", "--output-dir=" + folder, "--user=qd-user",
		"--leader-elect-resource-name=qd-lease-name",
	}, flags...)
	if !slices.ContainsFunc(flags, func(flag string) bool { return strings.HasPrefix(flag, leaseNamespace) }) {
		args = append(args, leaseNamespace+"=qd-lease-namespace")
	}
	var said bytes.Buffer
	command := exec.Command(program, args...)
	command.Stderr = &said
	if err := command.Run(); err != nil {
		return nil, fmt.Errorf("%s: %s", strings.Join(args, " "), strings.TrimSpace(said.String()))
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for _, entry := range entries {
		text, err := os.ReadFile(filepath.Join(folder, entry.Name()))
		if err != nil {
			return nil, err
		}
		files[strings.TrimSuffix(entry.Name(), ".yaml")] = text
	}
	return files, nil
}
