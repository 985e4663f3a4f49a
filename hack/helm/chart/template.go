package main

import (
	"fmt"
	"sort"
	"strings"

	"sigs.k8s.io/yaml"
)

// values that turn a whole file off.
var switches = map[string]string{
	"crds":       ".Values.crds.install",
	"fence":      ".Values.fence.install",
	"flowschema": ".Values.flowSchema.install",
	"rbac":       ".Values.rbac.create",
	// The binding of the addons' account is a matter of roles as well.
	"addons-cluster-admin": ".Values.rbac.create",
}

// template renders one file.
func (m *manifest) template() (string, error) {
	value, known := switches[m.name]
	if !known {
		return "", fmt.Errorf("no value of the chart turns this on: add it to hack/helm/chart")
	}
	var out strings.Builder
	fmt.Fprintf(&out, "{{- if %s }}\n{{- $on := include \"quarterdeck.on\" . | fromJson }}\n", value)
	for _, one := range m.objects {
		if err := one.write(&out, m.name); err != nil {
			return "", err
		}
	}
	out.WriteString("{{- end }}\n")
	return out.String(), nil
}

func (o *object) write(out *strings.Builder, manifest string) error {
	if manifest == "crds" {
		// Every object of these kinds would be deleted with it.
		metadata := o.rest["metadata"].(map[string]any)
		annotations, _ := metadata["annotations"].(map[string]any)
		if annotations == nil {
			annotations = map[string]any{}
			metadata["annotations"] = annotations
		}
		annotations["helm.sh/resource-policy"] = "keep"
	}
	rest, err := yaml.Marshal(o.rest)
	if err != nil {
		return err
	}
	condition := o.scenes.condition(nil)
	open(out, condition)
	out.WriteString("---\n" + filled(string(rest)))
	if o.hasRules {
		out.WriteString("rules:\n")
		for _, one := range o.rules {
			one.write(out, o.scenes)
		}
	}
	end(out, condition)
	return nil
}

func (r *rule) write(out *strings.Builder, outer when) {
	condition := r.scenes.condition(outer)
	open(out, condition)
	indent := "- "
	for _, key := range []string{"apiGroups", "resources", "nonResourceURLs", "verbs"} {
		if value, found := r.rest[key]; found {
			fmt.Fprintf(out, "%s%s: %s\n", indent, key, filled(text(value)))
			indent = "  "
		}
	}
	if len(r.names) > 0 {
		out.WriteString("  resourceNames:\n")
	}
	for _, one := range r.names {
		condition := one.scenes.condition(r.scenes)
		open(out, condition)
		fmt.Fprintf(out, "  - %s\n", filled(text(one.name)))
		end(out, condition)
	}
	end(out, condition)
}

func open(out *strings.Builder, condition string) {
	if condition != "" {
		fmt.Fprintf(out, "{{- if %s }}\n", condition)
	}
}

func end(out *strings.Builder, condition string) {
	if condition != "" {
		out.WriteString("{{- end }}\n")
	}
}

// condition is the expression that holds in these scenes and no others; empty
// if that is always, or whenever what it stands in is there.
func (w when) condition(outer when) string {
	own := w.expression()
	if own == "" || (outer != nil && own == outer.expression()) {
		return ""
	}
	return own
}

func (w when) expression() string {
	w = w.collapsed()
	var terms []string
	for _, scene := range w {
		if len(scene) == 0 {
			return ""
		}
		if w.impliedBy(scene) {
			continue
		}
		term := scene[0]
		if len(scene) > 1 {
			term = "(and " + strings.Join(scene, " ") + ")"
		}
		terms = append(terms, term)
	}
	sort.Strings(terms)
	terms = distinct(terms)
	if len(terms) == 1 {
		return terms[0]
	}
	return "or " + strings.Join(terms, " ")
}

// collapsed has one scene in the place of those that differ only in whose
// account addons act as, where there is one for each.
func (w when) collapsed() when {
	all := append(when{}, w...)
	for _, scene := range w {
		if len(scene) == 0 || !contains(scene, []string{addonAccounts[0]}) {
			continue
		}
		rest := without(scene, addonAccounts[0])
		each := true
		for _, account := range addonAccounts {
			each = each && w.has(append([]string{account}, rest...))
		}
		if each {
			all = append(all, rest)
		}
	}
	return all
}

func (w when) has(scene []string) bool {
	for _, other := range w {
		if len(other) == len(scene) && contains(other, scene) {
			return true
		}
	}
	return false
}

func without(scene []string, atom string) []string {
	var rest []string
	for _, other := range scene {
		if other != atom {
			rest = append(rest, other)
		}
	}
	return rest
}

// impliedBy: is there another scene that asks for less of the same?
func (w when) impliedBy(scene []string) bool {
	for _, other := range w {
		if len(other) < len(scene) && contains(scene, other) {
			return true
		}
	}
	return false
}

func contains(all, some []string) bool {
	for _, atom := range some {
		found := false
		for _, other := range all {
			found = found || other == atom
		}
		if !found {
			return false
		}
	}
	return true
}

func distinct(sorted []string) []string {
	var all []string
	for _, one := range sorted {
		if len(all) == 0 || all[len(all)-1] != one {
			all = append(all, one)
		}
	}
	return all
}
