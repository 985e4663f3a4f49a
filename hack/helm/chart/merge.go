package main

import (
	"encoding/json"
	"fmt"
	"sort"
	"strings"

	"sigs.k8s.io/yaml"
)

// when is the set of scenes that have something; nil: always.
type when [][]string

// manifest is one file of templates.
type manifest struct {
	name    string
	objects []*object
}

// object is one object, with the scenes that have it.
type object struct {
	// rest is everything but rules.
	rest map[string]any
	// rules of a role, in the order in which they were met.
	rules []*rule
	// hasRules: it is a role, even if it has none.
	hasRules bool
	scenes   when
}

// rule is one rule of a role.
type rule struct {
	// rest is everything but resourceNames.
	rest   map[string]any
	names  []*item
	scenes when
}

// item is one name of a rule.
type item struct {
	name   string
	scenes when
}

// ask asks for every scene and merges the answers.
func ask(program string, scenes []scene) ([]*manifest, error) {
	found := map[string]*manifest{}
	for _, scene := range scenes {
		files, err := install(program, scene.flags)
		if err != nil {
			return nil, err
		}
		for name, text := range files {
			// The fence has scenes of its own.
			if scene.only != name && (scene.only != "" || name == "fence") {
				continue
			}
			one := found[name]
			if one == nil {
				one = &manifest{name: name}
				found[name] = one
			}
			if err := one.add(scene.atoms, string(text)); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	var all []*manifest
	for _, one := range found {
		all = append(all, one)
	}
	sort.Slice(all, func(a, b int) bool { return all[a].name < all[b].name })
	return all, nil
}

// add merges the answer of one scene.
func (m *manifest) add(atoms []string, text string) error {
	for _, document := range strings.Split(text, "\n---\n")[1:] {
		var rest map[string]any
		if err := yaml.Unmarshal([]byte(document), &rest); err != nil {
			return err
		}
		rules, hasRules := rest["rules"].([]any)
		// Other kinds have rules of their own, which are no role's.
		kind, _ := rest["kind"].(string)
		hasRules = hasRules && (kind == "Role" || kind == "ClusterRole")
		if hasRules {
			delete(rest, "rules")
		}
		one := m.object(rest, hasRules)
		one.scenes = append(one.scenes, atoms)
		if !hasRules {
			continue
		}
		for _, value := range rules {
			one.add(atoms, value.(map[string]any))
		}
	}
	return nil
}

func (m *manifest) object(rest map[string]any, hasRules bool) *object {
	for _, one := range m.objects {
		if same(one.rest, rest) {
			return one
		}
	}
	one := &object{rest: rest, hasRules: hasRules}
	m.objects = append(m.objects, one)
	return one
}

func (o *object) add(atoms []string, value map[string]any) {
	names, _ := value["resourceNames"].([]any)
	delete(value, "resourceNames")
	one := o.rule(value, len(names) > 0)
	one.scenes = append(one.scenes, atoms)
	for _, name := range names {
		one.add(atoms, name.(string))
	}
}

func (o *object) rule(rest map[string]any, named bool) *rule {
	for _, one := range o.rules {
		if same(one.rest, rest) && named == (len(one.names) > 0) {
			return one
		}
	}
	one := &rule{rest: rest}
	o.rules = append(o.rules, one)
	return one
}

func (r *rule) add(atoms []string, name string) {
	for _, one := range r.names {
		if one.name == name {
			one.scenes = append(one.scenes, atoms)
			return
		}
	}
	r.names = append(r.names, &item{name: name, scenes: when{atoms}})
}

func same(a, b any) bool { return text(a) == text(b) }

// text is a value as JSON, with sorted keys.
func text(value any) string {
	data, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	return string(data)
}
